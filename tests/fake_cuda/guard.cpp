// Makes torch's C++ code find CUDA devices that are not there: one stream on each, and nothing to wait for.
// Torch has a table of device guards, and one object of "hooks" that answers questions about CUDA. Both are exchanged, and
// put back at the end. Torch has no function to exchange the hooks, so the pointer to their virtual functions is.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/utils/device_lazy_init.h>

#include <utility>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;
using c10::impl::DeviceGuardImplInterface;

int device_count = 1;
thread_local DeviceIndex current = 0;

struct FakeGuard final : DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  DeviceIndex deviceCount() const noexcept override { return static_cast<DeviceIndex>(device_count); }
  Device getDevice() const override { return Device(DeviceType::CUDA, current); }
  void setDevice(Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) current = device.index();
  }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    uncheckedSetDevice(device);
    return before;
  }

  Stream getStream(Device device) const override {
    return Stream(Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  Stream getDefaultStream(Device device) const override { return getStream(device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return getStream(device); }
  Stream getNewStream(Device device, int) const override { return getStream(device); }
  Stream exchangeStream(Stream stream) const override { return getStream(stream.device()); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}

  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    *event = &device_count;  // any address will do: nothing reads it
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
};

struct FakeHooks final : at::CUDAHooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(device_count); }
  DeviceIndex getCurrentDevice() const override { return current; }
};

FakeGuard fake_guard;
FakeHooks fake_hooks;
const DeviceGuardImplInterface* guard_before = nullptr;
void* functions_before = nullptr;

// The first word of an object with virtual functions points to them.
void*& functions_of(const at::CUDAHooksInterface& hooks) {
  return *reinterpret_cast<void**>(const_cast<at::CUDAHooksInterface*>(&hooks));
}

}  // namespace

extern "C" void install(int devices) {
  device_count = devices;
  current = 0;
  functions_before = std::exchange(functions_of(at::detail::getCUDAHooks()), functions_of(fake_hooks));
  guard_before = c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].exchange(&fake_guard);
}

extern "C" void uninstall() {
  functions_of(at::detail::getCUDAHooks()) = functions_before;
  c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(guard_before);
  torch::utils::set_requires_device_init(DeviceType::CUDA, true);  // let the next use of CUDA find that there is none
}
