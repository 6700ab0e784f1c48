#include "data/formats/mapped_file.hpp"

#include <fmt/core.h>

#include <boost/iostreams/device/mapped_file.hpp>
#include <filesystem>

#include "tensor/error.hpp"

namespace switchyard::formats {

struct MappedFile::State {
  boost::iostreams::mapped_file_source mapping;  // closed: the file is empty
};

MappedFile::MappedFile(const std::string& path) : state_(std::make_unique<State>()) {
  try {
    if (std::filesystem::file_size(path) > 0) state_->mapping.open(path);
  } catch (const std::exception& error) {
    throw IoError(fmt::format("{}: cannot be mapped into memory: {}", path, error.what()));
  }
}

MappedFile::~MappedFile() = default;
MappedFile::MappedFile(MappedFile&&) noexcept = default;
MappedFile& MappedFile::operator=(MappedFile&&) noexcept = default;

std::span<const std::byte> MappedFile::bytes() const {
  if (!state_->mapping.is_open()) return {};
  return std::as_bytes(std::span(state_->mapping.data(), state_->mapping.size()));
}

}  // namespace switchyard::formats
