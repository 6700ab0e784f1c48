#include "data/prepare/byte_source.hpp"

#include <fmt/core.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{256} << 10;

bool ends_with_in_any_case(std::string_view text, std::string_view lower_case_end) {
  if (text.size() < lower_case_end.size()) return false;
  return std::ranges::equal(
      text.substr(text.size() - lower_case_end.size()), lower_case_end,
      [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

[[noreturn]] void fail_to_open(const std::string& path) {
  throw IoError(
      fmt::format("{}: cannot open: {}", path, errno != 0 ? std::strerror(errno) : "no memory"));
}

[[noreturn]] void fail_to_read(const std::string& path) {
  throw IoError(fmt::format("{}: cannot read: {}", path, std::strerror(errno)));
}

// Plain files, too, which zlib passes on as they are.
class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(const std::string& path) : path_(path) {
    errno = 0;
    file_.reset(gzopen(path.c_str(), "rb"));
    if (!file_) fail_to_open(path);
    gzbuffer(file_.get(), buffer_bytes);
  }
  Read read(std::span<char> bytes) override {
    const int count = gzread(file_.get(), bytes.data(), static_cast<unsigned>(bytes.size()));
    int status = Z_OK;
    gzerror(file_.get(), &status);
    if (status == Z_ERRNO) fail_to_read(path_);
    const bool is_plain_gz =
        count > 0 && ends_with_in_any_case(path_, ".gz") && gzdirect(file_.get()) != 0;
    return {static_cast<std::size_t>(std::max(count, 0)),
            count < 0 || (count == 0 && status == Z_BUF_ERROR) || is_plain_gz};
  }
  std::int64_t bytes_read() const override {
    return std::max<std::int64_t>(0, gzoffset(file_.get()));
  }

 private:
  struct Close {
    void operator()(gzFile_s* opened) const { gzclose_r(opened); }
  };
  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
};

// Several frames may follow each other.
class ZstandardSource final : public ByteSource {
 public:
  explicit ZstandardSource(const std::string& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb")), input_(ZSTD_DStreamInSize()) {
    if (!file_) fail_to_open(path);
    stream_.reset(ZSTD_createDStream());
    if (!stream_) throw std::bad_alloc();
    // Large files are often packed with --long=31.
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, 31);
  }
  Read read(std::span<char> bytes) override {
    ZSTD_outBuffer output{bytes.data(), bytes.size(), 0};
    while (output.pos == 0) {
      const bool has_input = waiting_.pos < waiting_.size || refill();
      if (!has_input && !is_in_frame_) return {0, false};
      const std::size_t left = ZSTD_decompressStream(stream_.get(), &output, &waiting_);
      if (ZSTD_isError(left) != 0 || (!has_input && output.pos == 0)) return {0, true};
      is_in_frame_ = left != 0;
    }
    return {output.pos, false};
  }
  std::int64_t bytes_read() const override { return bytes_read_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  bool refill() {
    const std::size_t count = std::fread(input_.data(), 1, input_.size(), file_.get());
    if (count == 0 && std::ferror(file_.get()) != 0) fail_to_read(path_);
    bytes_read_ += static_cast<std::int64_t>(count);
    waiting_ = {input_.data(), count, 0};
    return count > 0;
  }

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<ZSTD_DStream, Close> stream_;
  std::vector<char> input_;
  ZSTD_inBuffer waiting_{nullptr, 0, 0};
  bool is_in_frame_ = false;  // whether more bytes are to come
  std::int64_t bytes_read_ = 0;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::string& path) {
  if (ends_with_in_any_case(path, ".zst")) return std::make_unique<ZstandardSource>(path);
  return std::make_unique<GzipSource>(path);
}

std::string_view without_compression(std::string_view path) {
  for (const std::string_view end : {".gz", ".zst"})
    if (ends_with_in_any_case(path, end)) return path.substr(0, path.size() - end.size());
  return path;
}

}  // namespace switchyard
