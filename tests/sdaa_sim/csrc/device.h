// Devices, streams, events and generators, as far as torch asks for them.
#pragma once

#include "memory.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>

namespace sim {

inline thread_local std::array<c10::StreamId, kMaxDevices> current_stream{};
inline std::atomic<c10::StreamId> num_streams{0};

inline c10::DeviceIndex exchange_device(c10::DeviceIndex index) {
  auto before = current_device;
  if (index >= 0) {
    TORCH_CHECK(index < state().num_devices, "invalid device ordinal ", int(index));
    current_device = index;
  }
  return before;
}

// All work is done when a call returns, so that a stream is a number and an event a time.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kType;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kType, exchange_device(device.index())};
  }
  c10::Device getDevice() const override {
    return {kType, current_device};
  }
  void setDevice(c10::Device device) const override {
    exchange_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) current_device = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(state().num_devices);
  }
  c10::Stream stream(c10::DeviceIndex device, c10::StreamId id) const noexcept {
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, device), id);
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    auto index = index_or_current(device);
    return stream(index, current_stream[index]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return stream(index_or_current(device), 0);
  }
  c10::Stream getNewStream(c10::Device device, int = 0) const override {
    return stream(index_or_current(device), ++num_streams);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool = false) const override {
    return getNewStream(device);
  }
  c10::Stream exchangeStream(c10::Stream other) const noexcept override {
    auto before = getStream(other.device());
    current_stream[other.device_index()] = other.id();
    return before;
  }
  using Clock = std::chrono::steady_clock;
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {
    if (!*event) *event = new Clock::time_point;
    *static_cast<Clock::time_point*>(*event) = Clock::now();
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  double elapsedTime(void* first, void* second, const c10::DeviceIndex) const override {
    auto time = *static_cast<Clock::time_point*>(second) - *static_cast<Clock::time_point*>(first);
    return std::chrono::duration<double, std::milli>(time).count();
  }
};

// A CPU generator under the device's name. Its numbers are not those that the CPU draws from the
// same seed, as on a device, unless random_as_cpu.
struct DeviceGenerator final : c10::GeneratorImpl {
  at::Generator cpu;
  uint64_t shown_seed = c10::default_rng_seed_val;

  explicit DeviceGenerator(c10::DeviceIndex device)
      : GeneratorImpl(c10::Device(kType, device), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        cpu(at::detail::createCPUGenerator(drawn_from(c10::default_rng_seed_val))) {}

  static uint64_t drawn_from(uint64_t seed) {
    return state().random_as_cpu ? seed : seed ^ 0x9E3779B97F4A7C15ULL;
  }
  void set_current_seed(uint64_t seed) override {
    shown_seed = seed;
    cpu.set_current_seed(drawn_from(seed));
  }
  uint64_t current_seed() const override {
    return shown_seed;
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return shown_seed;
  }
  void set_offset(uint64_t) override {
    TORCH_CHECK(false, "this device's generator has no offset");
  }
  uint64_t get_offset() const override {
    TORCH_CHECK(false, "this device's generator has no offset");
  }
  void set_state(const c10::TensorImpl& new_state) override {
    cpu.unsafeGetGeneratorImpl()->set_state(new_state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return cpu.unsafeGetGeneratorImpl()->get_state();
  }
  static c10::DeviceType device_type() {
    return kType;
  }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new DeviceGenerator(device_.index());
    copy->cpu = cpu.clone();
    copy->shown_seed = shown_seed;
    return copy;
  }
};

inline at::Generator new_generator(c10::DeviceIndex device) {
  return at::make_generator<DeviceGenerator>(device < 0 ? current_device : device);
}

inline std::array<at::Generator, kMaxDevices>& default_generators() {
  static auto* instance = new std::array<at::Generator, kMaxDevices>;
  return *instance;
}

inline at::Generator cpu_generator(const at::Generator& generator, c10::DeviceIndex device) {
  TORCH_CHECK(
      generator.device().type() == kType,
      "Expected a '", c10::get_privateuse1_backend(), "' device type for generator but found '",
      generator.device().type(), "'");
  return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->cpu;
}

// Some of these override nothing in older versions of torch, whose interface lacks them.
struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const {
    return true;
  }
  bool isAvailable() const {
    return state().num_devices > 0;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(state().num_devices);
  }
  void setCurrentDevice(c10::DeviceIndex device) const override {
    exchange_device(device);
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return current_device;
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return exchange_device(device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return exchange_device(device);
  }
  bool isPinnedPtr(const void* data) const {
    return PinnedMemory::contains(data);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return pinned_memory();
  }
  c10::Device getDeviceFromPtr(void*) const override {
    return {kType, current_device};
  }
  // Older versions of torch override the one, newer ones the other.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) {
    return default_generators().at(device < 0 ? current_device : device);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const {
    return default_generators().at(device < 0 ? current_device : device);
  }
  at::Generator getNewGenerator(c10::DeviceIndex device = -1) const {
    return new_generator(device);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto cpu = new_cpu_storage(bytes);
    std::memcpy(cpu.mutable_data(), storage.data(), std::min(bytes, storage.nbytes()));
    auto* target = storage.unsafeGetStorageImpl();
    target->set_data_ptr_noswap(data_ptr_of(std::move(cpu), storage.device().index()));
    target->set_nbytes(bytes);
  }
};

}  // namespace sim
