// Half precision on the CPU, where many operators lack it or have it only slowly: compute in
// float32 and round the results. The device's own rounding inside an operator is not simulated.
#pragma once

#include "device.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <set>

namespace sim {

// Operators that a CPU without half-precision instructions runs many times slower in it.
inline std::set<std::string>& float_operators() {
  static auto* names = new std::set<std::string>{
      "aten::convolution", "aten::convolution_backward", "aten::convolution_overrideable",
      "aten::convolution_backward_overrideable", "aten::mm", "aten::addmm", "aten::bmm",
      "aten::baddbmm", "aten::mm.out", "aten::addmm.out", "aten::bmm.out", "aten::baddbmm.out"};
  return *names;
}

inline bool is_half(const at::Tensor& tensor) {
  return tensor.defined() &&
      (tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16);
}

inline std::optional<at::ScalarType> half_type(const torch::jit::Stack& stack, size_t first) {
  for (size_t i = first; i < stack.size(); ++i) {
    if (stack[i].isTensor() && is_half(stack[i].toTensor())) return stack[i].toTensor().scalar_type();
    if (!stack[i].isTensorList()) continue;
    for (const at::Tensor& tensor : stack[i].toTensorVector()) {
      if (is_half(tensor)) return tensor.scalar_type();
    }
  }
  return std::nullopt;
}

inline void call_in_float(
    const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t first, at::ScalarType half) {
  std::vector<std::pair<at::Tensor, at::Tensor>> widened;
  auto widen = [&](const at::Tensor& tensor) {
    if (!is_half(tensor)) return tensor;
    widened.emplace_back(tensor, tensor.to(at::kFloat));
    return widened.back().second;
  };
  auto narrow = [&](const at::Tensor& tensor) {
    for (auto& [original, wide] : widened) {
      if (wide.is_same(tensor)) return original;
    }
    return tensor.defined() && tensor.scalar_type() == at::kFloat ? tensor.to(half) : tensor;
  };
  auto convert = [](c10::IValue& value, auto&& function) {
    if (value.isTensor()) {
      value = function(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(function(tensor));
      value = tensors;
    }
  };
  for (size_t i = first; i < stack->size(); ++i) convert((*stack)[i], widen);
  auto arguments = torch::jit::Stack(stack->begin() + first, stack->end());
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = op.schema().arguments()[i].alias_info();
    if (!alias || !alias->isWrite()) continue;
    convert(arguments[i], [&](const at::Tensor& wide) {
      auto original = narrow(wide);
      if (original.sizes() != wide.sizes()) original.resize_(wide.sizes());
      return original.copy_(wide);
    });
  }
  for (size_t i = first; i < stack->size(); ++i) convert((*stack)[i], narrow);
}

inline void call_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static auto* mutex = new std::mutex;
  const size_t first = stack->size() - op.schema().arguments().size();
  const auto half = half_type(*stack, first);
  if (!half) return op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const auto name = c10::toString(op.operator_name());
  {
    std::unique_lock<std::mutex> lock(*mutex);
    if (float_operators().count(name)) {
      lock.unlock();
      return call_in_float(op, stack, first, *half);
    }
  }
  const auto arguments = torch::jit::Stack(stack->begin() + first, stack->end());
  try {
    return op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  } catch (const c10::Error& error) {
    std::string text = error.what_without_backtrace();
    auto type = text.find("not implemented for ");
    if (type == std::string::npos ||
        (text.find("Half", type) == std::string::npos &&
         text.find("BFloat16", type) == std::string::npos)) {
      throw;
    }
  }
  {
    std::lock_guard<std::mutex> lock(*mutex);
    float_operators().insert(name);
  }
  stack->resize(first);
  stack->insert(stack->end(), arguments.begin(), arguments.end());
  call_in_float(op, stack, first, *half);
}

}  // namespace sim
