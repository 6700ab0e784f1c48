#include "tensor/cuda/mapped_memory.hpp"

#include <fmt/core.h>

#include "tensor/cuda/runtime.hpp"
#include "tensor/error.hpp"

namespace switchyard::cuda {

// The oldest form of each function suffices: CUDA 12.0.
struct MappedMemory::Driver {
  template <class Function>
  static void find(const char* name, Function& function) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result));
    expect(result == cudaDriverEntryPointSuccess, name);
    function = reinterpret_cast<Function>(found);
  }
  Driver() {
    find("cuMemAddressReserve", reserve);
    find("cuMemAddressFree", free);
    find("cuMemCreate", create);
    find("cuMemRelease", release);
    find("cuMemMap", map);
    find("cuMemUnmap", unmap);
    find("cuMemSetAccess", set_access);
    find("cuMemGetAllocationGranularity", granularity);
  }
  static const Driver& functions() {
    static const Driver driver;
    return driver;
  }

  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
};

namespace {

void check_driver(CUresult status, std::string_view what) {
  expect(status == CUDA_SUCCESS,
         fmt::format("CUDA driver: {} gave error {}", what, static_cast<int>(status)));
}

CUdeviceptr as_pointer(const std::byte* address) {
  return reinterpret_cast<CUdeviceptr>(address);
}

}  // namespace

MappedMemory::MappedMemory(int card) : driver_(Driver::functions()) {
  properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties_.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = card};
  std::size_t granularity = 0;
  check_driver(driver_.granularity(&granularity, &properties_, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
               "cuMemGetAllocationGranularity");
  granularity_ = static_cast<std::int64_t>(granularity);
}

MappedMemory::~MappedMemory() {
  for (const auto& [address, range] : ranges_) unmap(address, range);
}

std::int64_t MappedMemory::rounded(std::int64_t bytes) const {
  return (bytes + granularity_ - 1) / granularity_ * granularity_;
}

std::byte* MappedMemory::reserve(std::int64_t max_bytes) {
  CUdeviceptr address = 0;
  const CUresult status =
      driver_.reserve(&address, static_cast<std::size_t>(rounded(max_bytes)), 0, 0, 0);
  if (status != CUDA_SUCCESS)
    throw MemoryError(
        fmt::format("the CUDA driver refused to reserve {} bytes of addresses "
                    "(error {}); {} bytes are in use",
                    max_bytes, static_cast<int>(status), mapped_bytes_));
  std::byte* range = reinterpret_cast<std::byte*>(address);
  ranges_[range] = {.max_bytes = rounded(max_bytes), .mapped = 0, .chunks = {}};
  return range;
}

MappedMemory::Grown MappedMemory::grow(std::byte* address, std::int64_t bytes) {
  Range& range = ranges_.at(address);
  const std::int64_t before = range.mapped;
  const std::int64_t after = rounded(bytes);
  if (after <= before) return {before, before};
  expect(after <= range.max_bytes, "at most as many bytes as were reserved");
  const auto more = static_cast<std::size_t>(after - before);
  Chunk chunk{.handle = 0, .bytes = after - before};
  const CUresult status = driver_.create(&chunk.handle, more, &properties_, 0);
  if (status == CUDA_ERROR_OUT_OF_MEMORY)
    throw MemoryError(fmt::format(
        "the card has no {} bytes left; this process holds {} bytes of it. Use more ranks or a "
        "smaller train.micro_batch",
        more, mapped_bytes_));
  check_driver(status, "cuMemCreate");
  check_driver(driver_.map(as_pointer(address + before), more, 0, chunk.handle, 0), "cuMemMap");
  const CUmemAccessDesc access{.location = properties_.location,
                               .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  check_driver(driver_.set_access(as_pointer(address + before), more, &access, 1),
               "cuMemSetAccess");
  range.chunks.push_back(chunk);
  range.mapped = after;
  mapped_bytes_ += chunk.bytes;
  return {before, after};
}

void MappedMemory::release(std::byte* address) noexcept {
  const auto found = ranges_.find(address);
  if (found == ranges_.end()) return;
  unmap(address, found->second);
  mapped_bytes_ -= found->second.mapped;
  ranges_.erase(found);
}

void MappedMemory::unmap(std::byte* address, const Range& range) noexcept {
  std::int64_t at = 0;
  for (const Chunk& chunk : range.chunks) {
    driver_.unmap(as_pointer(address + at), static_cast<std::size_t>(chunk.bytes));
    driver_.release(chunk.handle);
    at += chunk.bytes;
  }
  driver_.free(as_pointer(address), static_cast<std::size_t>(range.max_bytes));
}

}  // namespace switchyard::cuda
