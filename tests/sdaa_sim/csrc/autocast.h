// Mixed precision with the policies that torch has for CUDA, as one boxed kernel per policy.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "memory.h"

namespace sim {

enum class Policy { lower, fp32, fp32_dtype, promote };

// Applies `function` to every tensor among the arguments.
template <typename Function>
void for_tensors(torch::jit::Stack& stack, size_t first, Function&& function) {
  for (size_t i = first; i < stack.size(); ++i) {
    auto& value = stack[i];
    if (value.isTensor()) {
      value = function(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(function(tensor));
      value = tensors;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
        tensors.push_back(tensor ? std::optional<at::Tensor>(function(*tensor)) : std::nullopt);
      }
      value = tensors;
    }
  }
}

inline bool takes_part(const at::Tensor& tensor) {
  return tensor.defined() && at::autocast::is_autocast_eligible(tensor, kType) &&
      tensor.scalar_type() != at::kDouble;
}

template <Policy policy>
void autocast_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastPrivateUse1);
  const auto& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  auto type = at::kFloat;
  if (policy == Policy::lower) type = at::autocast::get_autocast_dtype(kType);
  if (policy == Policy::promote) {
    type = at::autocast::get_autocast_dtype(kType);
    for_tensors(*stack, first, [&](const at::Tensor& tensor) {
      if (takes_part(tensor) && tensor.scalar_type() == at::kFloat) type = at::kFloat;
      return tensor;
    });
  }
  if (policy == Policy::fp32_dtype) {
    if (takes_part((*stack)[first].toTensor())) {
      for (size_t i = 0; i < arguments.size(); ++i) {
        auto& value = (*stack)[first + i];
        if (arguments[i].name() == "dtype" && value.isNone()) value = at::kFloat;
      }
    }
  } else {
    for_tensors(*stack, first, [&](const at::Tensor& tensor) {
      return takes_part(tensor) ? at::autocast::cached_cast(type, tensor, kType) : tensor;
    });
  }
  op.callBoxed(stack);
}

inline void banned_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK(
      false, op.operator_name().name, " is unsafe to autocast: use ",
      "binary_cross_entropy_with_logits, which is safe");
}

template <Policy policy>
void set_policy(torch::Library& library, const std::string& name, const std::string& overload) {
  auto full = overload.empty() ? name : name + "." + overload;
  library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&autocast_kernel<policy>>());
}

inline void register_autocast(torch::Library& library) {
#define SIM_LOWER(op, ...) set_policy<Policy::lower>(library, #op, #__VA_ARGS__);
#define SIM_FP32(op, ...) set_policy<Policy::fp32>(library, #op, #__VA_ARGS__);
#define SIM_FP32_DTYPE(op, ...) set_policy<Policy::fp32_dtype>(library, #op, #__VA_ARGS__);
#define SIM_PROMOTE(op, ...) set_policy<Policy::promote>(library, #op, #__VA_ARGS__);
  AT_FORALL_LOWER_PRECISION_FP(SIM_LOWER)
  AT_FORALL_FP32(SIM_FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(SIM_FP32_DTYPE)
  AT_FORALL_PROMOTE(SIM_PROMOTE)
  // Torch adds float32 as these two's dtype; computing on a float32 input is the same.
  SIM_FP32(norm, Scalar)
  SIM_FP32(norm, ScalarOpt_dim)
  library.impl(
      "binary_cross_entropy", torch::CppFunction::makeFromBoxedFunction<&banned_kernel>());
}

}  // namespace sim
