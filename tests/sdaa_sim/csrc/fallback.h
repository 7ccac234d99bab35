// One boxed kernel for every operator: run it on the CPU, on views of the device's own memory.
#pragma once

#include "precision.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>


namespace sim {

inline bool on_device(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

// The CPU storage of a device's storage. One that torch laid over the device's memory, to read it
// for a file, has none: it gets one that does not own the memory either.
inline c10::Storage host_storage(const c10::Storage& storage) {
  const auto* block = storage.data_ptr().cast_context<Block>(&Block::remove);
  if (block) return block->cpu;
  auto* data = const_cast<void*>(storage.data());
  return c10::Storage(
      c10::Storage::use_byte_size_t(), storage.nbytes(),
      c10::DataPtr(data, c10::Device(c10::DeviceType::CPU)), nullptr, false);
}

inline bool same(const c10::Storage& one, const c10::Storage& other) {
  return one.unsafeGetStorageImpl() == other.unsafeGetStorageImpl() ||
      (one.data() && one.data() == other.data());
}

inline void copy_geometry(const at::Tensor& from, const at::Tensor& to) {
  auto* impl = to.unsafeGetTensorImpl();
  impl->set_storage_offset(from.storage_offset());
  impl->set_sizes_and_strides(from.sizes(), from.strides());
}

inline at::Tensor make_view(const at::Tensor& like, c10::Storage storage, c10::DispatchKey key) {
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), like.dtype());
  copy_geometry(like, view);
  if (like.is_conj()) view._set_conj(true);
  if (like.is_neg()) view._set_neg(true);
  return view;
}

// The same memory as a tensor on the CPU.
inline at::Tensor host_view(const at::Tensor& tensor) {
  return make_view(tensor, host_storage(tensor.storage()), c10::DispatchKey::CPU);
}

// What an operator's arguments are on the CPU, and the way back for its results.
class Crossing {
 public:
  explicit Crossing(const c10::OperatorHandle& op) : op_(op) {}

  c10::IValue to_host(const c10::IValue& value, const c10::Argument& argument) {
    bool is_written = argument.alias_info() && argument.alias_info()->isWrite();
    if (value.isTensor()) return to_host(value.toTensor(), is_written);
    if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& t : value.toTensorVector()) tensors.push_back(to_host(t, is_written));
      return tensors;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) {
        tensors.push_back(t ? std::optional<at::Tensor>(to_host(*t, is_written)) : std::nullopt);
      }
      return tensors;
    }
    if (value.isDevice() && value.toDevice().type() == kType) {
      see(c10::Device(kType, index_or_current(value.toDevice())));
      return c10::Device(c10::DeviceType::CPU);
    }
    if (value.isStorage() && value.toStorage().device_type() == kType) {
      see(value.toStorage().device());
      storages_.push_back(value.toStorage());
      return host_storage(value.toStorage());
    }
    return value;
  }

  // Generators last, when the device is known: None means the device's own one.
  void to_host_generator(c10::IValue& value, const c10::Argument& argument) const {
    if (argument.name() != "generator") return;
    auto index = device_.value_or(c10::Device(kType, current_device)).index();
    if (value.isGenerator()) {
      value = cpu_generator(value.toGenerator(), index);
    } else if (value.isNone()) {
      value = cpu_generator(default_generators()[index], index);
    }
  }

  c10::IValue to_device(const c10::IValue& value) {
    if (value.isTensor()) return to_device(value.toTensor());
    if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& t : value.toTensorVector()) tensors.push_back(to_device(t));
      return tensors;
    }
    return value;
  }

  // In-place operators may have given a tensor another size, or its storage other memory.
  void update_written() {
    for (auto& [device, host, is_written] : pairs_) {
      if (!is_written) continue;
      if (!same(host.storage(), host_storage(device.storage()))) {
        device.unsafeGetTensorImpl()->set_storage_keep_dtype(storage_of(host));
      } else if (device.storage().data() != host.storage().data() ||
                 device.storage().nbytes() != host.storage().nbytes()) {
        auto* storage = device.storage().unsafeGetStorageImpl();
        storage->set_data_ptr_noswap(data_ptr_of(host.storage(), device.device().index()));
        storage->set_nbytes(host.storage().nbytes());
      }
      if (device.sizes() != host.sizes() || device.strides() != host.strides() ||
          device.storage_offset() != host.storage_offset()) {
        copy_geometry(host, device);
      }
    }
  }

 private:
  struct Pair {
    at::Tensor device, host;
    bool is_written;
  };

  void see(c10::Device device) {
    TORCH_CHECK(
        !device_ || *device_ == device, "Expected all tensors to be on the same device, but found ",
        "at least two devices, ", *device_, " and ", device, "! (in ", op_.operator_name(), ")");
    TORCH_CHECK(
        !host_tensor_seen_ || takes_host_tensors(),
        "Expected all tensors to be on the same device, but found at least two devices, cpu and ",
        device, "! (in ", op_.operator_name(), ")");
    device_ = device;
  }

  // As on other devices: a number may be on the CPU, and so may indices, and what foreach takes.
  bool takes_host_tensors() const {
    const std::string& name = op_.operator_name().name;
    return name.rfind("aten::_foreach_", 0) == 0 ||
        (!pairs_.empty() && (name == "aten::index" || name == "aten::index_put_" ||
                             name == "aten::_index_put_impl_" || name == "aten::index_put"));
  }

  at::Tensor to_host(const at::Tensor& tensor, bool is_written) {
    if (!on_device(tensor)) {
      if (tensor.defined() && tensor.dim() > 0) {
        if (device_ && !takes_host_tensors()) {
          host_tensor_seen_ = true;
          see(*device_);
        }
        host_tensor_seen_ = true;
      }
      return tensor;
    }
    see(tensor.device());
    pairs_.push_back({tensor, host_view(tensor), is_written});
    return pairs_.back().host;
  }

  c10::Storage storage_of(const at::Tensor& host) {
    for (const auto& pair : pairs_) {
      if (same(host_storage(pair.device.storage()), host.storage())) {
        return pair.device.storage();
      }
    }
    for (const auto& storage : storages_) {
      if (same(host_storage(storage), host.storage())) return storage;
    }
    auto bytes = host.storage().nbytes();
    auto index = device_.value_or(c10::Device(kType, current_device)).index();
    return c10::Storage(
        c10::Storage::use_byte_size_t(), bytes, data_ptr_of(host.storage(), index),
        device_memory(), true);
  }

  at::Tensor to_device(const at::Tensor& host) {
    if (!host.defined()) return host;
    for (const auto& pair : pairs_) {
      if (pair.host.is_same(host)) return pair.device;
    }
    return make_view(host, storage_of(host), c10::DispatchKey::PrivateUse1);
  }

  const c10::OperatorHandle& op_;
  std::optional<c10::Device> device_;
  bool host_tensor_seen_ = false;
  c10::SmallVector<Pair, 8> pairs_;
  std::vector<c10::Storage> storages_;
};

inline void run_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t num_arguments = schema.arguments().size();
  const size_t first = stack->size() - num_arguments;
  Crossing crossing(op);
  for (size_t i = 0; i < num_arguments; ++i) {
    auto& value = (*stack)[first + i];
    value = crossing.to_host(value, schema.arguments()[i]);
  }
  for (size_t i = 0; i < num_arguments; ++i) {
    crossing.to_host_generator((*stack)[first + i], schema.arguments()[i]);
  }
  call_on_cpu(op, stack);
  crossing.update_written();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    (*stack)[i] = crossing.to_device((*stack)[i]);
  }
}

}  // namespace sim
