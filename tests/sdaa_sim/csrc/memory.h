// A device's memory: blocks of host memory that are counted per device, and can be refused.
//
// Every storage on the simulated device owns a Block, which holds the CPU storage with the bytes.
// So a tensor on the device and its view on the CPU share memory, and nothing is ever copied
// between them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Storage.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/version.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <unistd.h>

#define TORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > major || (TORCH_VERSION_MAJOR == major && TORCH_VERSION_MINOR >= minor))

#if TORCH_AT_LEAST(2, 9)
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace sim {

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr int kMaxDevices = 16;

struct Memory {
  int64_t now = 0, peak = 0, num_allocations = 0;
};

// What the environment variables say, and what of it is used up. Guarded by `mutex`.
struct State {
  std::mutex mutex;
  int num_devices = 1;
  int64_t capacity = int64_t(15) << 30;  // bytes of one device
  std::string log_file;
  bool random_as_cpu = false;
  int64_t fail_min_bytes = 0, fail_skip = 0, fail_count = 0;
  std::atomic<bool> is_forked{false};
  std::array<Memory, kMaxDevices> memory;
};

inline State& state() {
  static auto* instance = new State;  // never destroyed: storages may outlive statics
  return *instance;
}

inline thread_local c10::DeviceIndex current_device = 0;

inline c10::DeviceIndex index_or_current(c10::Device device) {
  return device.has_index() ? device.index() : current_device;
}

inline void log_line(const std::string& fields) {
  if (state().log_file.empty()) return;
  std::FILE* file = std::fopen(state().log_file.c_str(), "a");
  if (!file) return;
  std::string line = "{\"pid\": " + std::to_string(getpid()) + ", " + fields + "}\n";
  std::fwrite(line.data(), 1, line.size(), file);
  std::fclose(file);
}

// Counts `bytes` on the device. Raises what the device says when its memory is full.
inline void count(c10::DeviceIndex device, int64_t bytes) {
  auto& s = state();
  TORCH_CHECK(
      !s.is_forked,
      "Cannot re-initialize ", c10::get_privateuse1_backend(), " in forked subprocess. ",
      "To use it with multiprocessing, you must use the 'spawn' start method");
  TORCH_CHECK(device < s.num_devices, "invalid device ordinal ", int(device));
  std::lock_guard<std::mutex> lock(s.mutex);
  auto& memory = s.memory[device];
  bool fails = memory.now + bytes > s.capacity;
  if (s.fail_count > 0 && bytes >= s.fail_min_bytes) {
    if (s.fail_skip > 0) {
      --s.fail_skip;
    } else {
      --s.fail_count;
      fails = true;
    }
  }
  if (fails) {
    log_line("\"call\": \"out_of_memory\", \"bytes\": " + std::to_string(bytes));
    std::ostringstream text;
    text.precision(2);
    text << std::fixed << c10::get_privateuse1_backend() << " out of memory. Tried to allocate "
         << bytes / 1048576.0 << " MiB (device " << int(device) << "; "
         << s.capacity / 1073741824.0 << " GiB total capacity; " << memory.now / 1048576.0
         << " MiB already allocated)";
    TORCH_CHECK(false, text.str());
  }
  memory.now += bytes;
  memory.peak = std::max(memory.peak, memory.now);
  ++memory.num_allocations;
}

struct Block {
  c10::Storage cpu;
  c10::DeviceIndex device;
  int64_t bytes;

  Block(c10::Storage storage, c10::DeviceIndex index)
      : cpu(std::move(storage)), device(index), bytes(static_cast<int64_t>(cpu.nbytes())) {
    count(device, bytes);
  }
  ~Block() {
    std::lock_guard<std::mutex> lock(state().mutex);
    state().memory[device].now -= bytes;
  }
  static void remove(void* block) { delete static_cast<Block*>(block); }
};

inline c10::DataPtr data_ptr_of(c10::Storage cpu, c10::DeviceIndex device) {
  void* data = cpu.mutable_data();
  auto* block = new Block(std::move(cpu), device);
  return {data, block, &Block::remove, c10::Device(kType, device)};
}

inline c10::Storage new_cpu_storage(size_t bytes) {
  auto* allocator = c10::GetCPUAllocator();
  return c10::Storage(c10::Storage::use_byte_size_t(), bytes, allocator->allocate(bytes), allocator, true);
}

#if TORCH_AT_LEAST(2, 9)
using AllocatorBase = c10::DeviceAllocator;
#else
using AllocatorBase = c10::Allocator;
#endif

struct DeviceMemory final : AllocatorBase {
  c10::DataPtr allocate(size_t bytes) override {
    return data_ptr_of(new_cpu_storage(bytes), current_device);
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
#if TORCH_AT_LEAST(2, 9)
  using Stats = c10::CachingDeviceAllocator::DeviceStats;
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  Stats getDeviceStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> lock(state().mutex);
    const auto& memory = state().memory.at(device);
    Stats stats;
    for (auto* bytes : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes}) {
      (*bytes)[0].current = memory.now;
      (*bytes)[0].peak = memory.peak;
    }
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    std::lock_guard<std::mutex> lock(state().mutex);
    state().memory.at(device).peak = state().memory.at(device).now;
  }
#endif
};

inline DeviceMemory* device_memory() {
  static auto* instance = new DeviceMemory;
  return instance;
}

// Host memory that remembers that it is "pinned": there is nothing to pin it for.
struct PinnedMemory final : c10::Allocator {
  static std::map<const void*, size_t>& pinned() {
    static auto* instance = new std::map<const void*, size_t>;
    return *instance;
  }
  static void remove(void* data) {
    {
      std::lock_guard<std::mutex> lock(state().mutex);
      pinned().erase(data);
    }
    c10::free_cpu(data);
  }
  static bool contains(const void* data) {
    std::lock_guard<std::mutex> lock(state().mutex);
    auto after = pinned().upper_bound(data);
    if (after == pinned().begin()) return false;
    auto block = std::prev(after);
    return static_cast<const char*>(data) < static_cast<const char*>(block->first) + block->second;
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> lock(state().mutex);
    if (data) pinned()[data] = bytes;
    return {data, data, &remove, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &remove;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

inline PinnedMemory* pinned_memory() {
  static auto* instance = new PinnedMemory;
  return instance;
}

}  // namespace sim
