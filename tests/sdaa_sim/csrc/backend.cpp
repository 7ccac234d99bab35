// Registers the simulated device with torch. Its name is given by Python; here it has none.
#include "autocast.h"
#include "fallback.h"

#include <ATen/EmptyTensor.h>

namespace sim {

at::Tensor empty(
    c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>,
    std::optional<at::MemoryFormat> memory_format) {
  c10::DeviceGuard guard(device.value_or(c10::Device(kType)));
  return at::detail::empty_generic(
      size, device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype), memory_format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(c10::Device(kType)));
  return at::detail::empty_strided_generic(
      size, stride, device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype));
}

at::Tensor as_host(const at::Tensor& tensor) {
  return on_device(tensor) ? host_view(tensor) : tensor;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  as_host(to).copy_(as_host(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

// The CPU's kernel would draw from the CPU's generator.
std::tuple<at::Tensor, at::Tensor> native_dropout(
    const at::Tensor& input, double p, std::optional<bool> train) {
  auto mask = at::ones_like(input, input.options().dtype(at::kBool));
  if (!train.value_or(true)) return {input.clone(), mask};
  mask.bernoulli_(1 - p);
  return {input * mask * (p == 1 ? 0.0 : 1 / (1 - p)), mask};
}

void record_stream(at::Tensor&, at::Stream) {}

// torch <= 2.5 asks the device's own kernels; later ones ask the hooks.
#if !TORCH_AT_LEAST(2, 6)
bool is_pinned(const at::Tensor& tensor, std::optional<at::Device>) {
  return PinnedMemory::contains(tensor.storage().data());
}

at::Tensor pin_memory(const at::Tensor& tensor, std::optional<at::Device>) {
  auto bytes = at::detail::computeStorageNbytes(
      tensor.sizes(), tensor.strides(), tensor.dtype().itemsize());
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), bytes, pinned_memory()->allocate(bytes), pinned_memory(), false);
  auto pinned = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  pinned.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  return pinned.copy_(tensor);
}
#endif

at::Tensor as_new_host_view(const at::Tensor& tensor) {
  TORCH_CHECK(on_device(tensor), "a tensor on ", tensor.device(), " is not on the device");
  return host_view(tensor);
}

void start(int64_t num_devices, int64_t capacity, std::string log_file, bool random_as_cpu) {
  auto& s = state();
  s.num_devices = static_cast<int>(std::min<int64_t>(num_devices, kMaxDevices));
  s.capacity = capacity;
  s.log_file = std::move(log_file);
  s.random_as_cpu = random_as_cpu;
  for (int i = 0; i < s.num_devices; ++i) default_generators()[i] = new_generator(i);
}

void set_device(int64_t index) {
  TORCH_CHECK(index >= 0, "invalid device ordinal ", index);
  exchange_device(static_cast<c10::DeviceIndex>(index));
}

int64_t get_device() {
  return current_device;
}

void set_stream(int64_t device, int64_t id) {
  current_stream.at(device) = id;
}

int64_t get_stream(int64_t device) {
  return current_stream.at(device);
}

void set_default_generator(std::optional<at::Generator> generator) {
  default_generators().at(generator->device().index()) = *generator;
}

std::vector<int64_t> memory(int64_t device) {
  std::lock_guard<std::mutex> lock(state().mutex);
  const auto& found = state().memory.at(device);
  return {found.now, found.peak, found.num_allocations};
}

void reset_peak(int64_t device) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().memory.at(device).peak = state().memory.at(device).now;
}

void fail_next(int64_t min_bytes, int64_t count, int64_t skip) {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().fail_min_bytes = min_bytes;
  state().fail_count = count;
  state().fail_skip = skip;
}

void forked() {
  state().is_forked = true;
}

// Every operator that has a kernel for the CPU runs in it. Without this, torch would take those
// apart that it can build from others: the same numbers, in more calls and with more copies.
void register_cpu_kernels(torch::Library& library) {
  const std::set<std::string> others = {
      "empty.memory_format", "empty_strided", "_copy_from", "_copy_from_and_resize",
      "_fused_sdp_choice", "native_dropout", "is_pinned", "_pin_memory"};
  auto add = [&](const std::string& name) {
    library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  };
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    auto op = dispatcher.findOp(name);
    auto full = c10::toString(name);
    if (!op || full.rfind("aten::", 0) != 0 || others.count(full.substr(6))) continue;
    if (op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) add(full.substr(6));
  }
  add("convolution");
  add("convolution_backward");
}

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
REGISTER_ALLOCATOR(kType, device_memory());

struct RegisterHooks {
  RegisterHooks() {
    at::RegisterPrivateUse1HooksInterface(new Hooks);
  }
} register_hooks;

#if !TORCH_AT_LEAST(2, 7)
REGISTER_GENERATOR_PRIVATEUSE1(new_generator)
#endif

TORCH_LIBRARY(device_sim, library) {
  library.def("start(int num_devices, int capacity, str log_file, bool random_as_cpu) -> ()", start);
  library.def("set_device(int index) -> ()", set_device);
  library.def("get_device() -> int", get_device);
  library.def("set_stream(int device, int id) -> ()", set_stream);
  library.def("get_stream(int device) -> int", get_stream);
  library.def("set_default_generator(Generator? generator) -> ()", set_default_generator);
  library.def("memory(int device) -> int[]", memory);
  library.def("reset_peak(int device) -> ()", reset_peak);
  library.def("fail_next(int min_bytes, int count, int skip) -> ()", fail_next);
  library.def("forked() -> ()", forked);
  library.def("host_view(Tensor tensor) -> Tensor", as_new_host_view);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("native_dropout", native_dropout);
  library.impl("record_stream", record_stream);
#if !TORCH_AT_LEAST(2, 6)
  library.impl("is_pinned", is_pinned);
  library.impl("_pin_memory", pin_memory);
#endif
  register_cpu_kernels(library);
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, library) {
  register_autocast(library);
}

}  // namespace sim
