#include "trainer/run/meters/event_file.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "tensor/error.hpp"
#include "trainer/run/meters/restart_history.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit)
      value = (value & 1) != 0 ? (value >> 1) ^ 0x82F63B78U : value >> 1;
    table[byte] = value;
  }
  return table;
}

// Kept with the data that it is of: a checksum of a text with its own checksum would be weak.
std::uint32_t masked(std::uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

template <class Number>
std::string little_endian(Number number) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

// Protocol buffers: base-128 numbers, and fields of a tag (number * 8 + wire type) and a value.
std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string tag(int field, int wire_type) {
  return varint(static_cast<std::uint64_t>(field * 8 + wire_type));
}
std::string field_of(int field, double value) {
  return tag(field, 1) + little_endian(value);
}
std::string field_of(int field, float value) {
  return tag(field, 5) + little_endian(value);
}
std::string field_of(int field, std::int64_t value) {
  return tag(field, 0) + varint(static_cast<std::uint64_t>(value));
}
std::string field_of(int field, std::string_view bytes) {
  return tag(field, 2) + varint(bytes.size()) + std::string(bytes);
}

// The numbers of fields in Event, Summary, Summary.Value and SessionLog.
constexpr int event_wall_time = 1, event_step = 2, event_file_version = 3, event_summary = 5,
              event_session_log = 7;
constexpr int summary_value = 1, value_tag = 1, value_simple = 2;
constexpr int session_status = 1;
constexpr std::int64_t session_start = 1;

std::string event_at(std::int64_t step) {
  return field_of(event_wall_time, unix_seconds()) + field_of(event_step, step);
}

class Summary {
 public:
  void add(std::string_view name, double value) {
    values_ += field_of(summary_value,
                        std::string_view(field_of(value_tag, name) +
                                         field_of(value_simple, static_cast<float>(value))));
  }
  std::string event(std::int64_t step) const {
    return event_at(step) + field_of(event_summary, std::string_view(values_));
  }

 private:
  std::string values_;
};

void remove_event_files(const std::string& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (entry.path().filename().string().starts_with("events.out.tfevents."))
      fs::remove(entry.path(), error);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> table = crc_table();
  std::uint32_t crc = ~0U;
  for (const char letter : bytes)
    crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(letter)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const std::string& folder, std::int64_t first_step, bool anew) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  if (anew) remove_event_files(folder);
  // Readers take the files in the order of their names.
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const double now = unix_seconds();
  path_ = fmt::format("{}/events.out.tfevents.{:010.0f}.{}.{}.{:06.0f}", folder, std::floor(now),
                      host.data(), ::getpid(), 1e6 * (now - std::floor(now)));
  file_.reset(std::fopen(path_.c_str(), "wbe"));
  if (!file_) throw IoError(fmt::format("{}: cannot be opened: {}", path_, std::strerror(errno)));
  append(field_of(event_wall_time, now) +
         field_of(event_file_version, std::string_view("brain.Event:2")));
  append(event_at(first_step) +
         field_of(event_session_log, std::string_view(field_of(session_status, session_start))));
}

void EventFile::write(const StepMetrics& m) {
  Summary summary;
  summary.add("loss/total", m.loss);
  summary.add("loss/cross_entropy", m.cross_entropy);
  summary.add("loss/balance", m.balance_loss);
  summary.add("loss/z", m.z_loss);
  summary.add("optimizer/grad_norm", m.grad_norm);
  summary.add("optimizer/learning_rate", m.learning_rate);
  summary.add("progress/num_tokens", static_cast<double>(m.num_tokens));
  summary.add("speed/step_seconds", m.step_seconds);
  summary.add("speed/tokens_per_second", m.tokens_per_second);
  summary.add("speed/model_flops_per_second", m.model_flops_per_second);
  summary.add("memory/bytes", static_cast<double>(m.memory_bytes));
  summary.add("experts/max_rows", static_cast<double>(m.max_rows));
  summary.add("experts/load_max_over_mean", m.load_max_over_mean);
  summary.add("experts/dropped_fraction", m.dropped_fraction);
  if (m.part_seconds)
    for (std::size_t part = 0; part < num_parts; ++part)
      if ((*m.part_seconds)[part] > 0)
        summary.add(fmt::format("part_seconds/{}", name_of(static_cast<Part>(part))),
                    (*m.part_seconds)[part]);
  append(summary.event(m.step));
}

void EventFile::write(const EvaluationMetrics& m) {
  Summary summary;
  summary.add("loss/validation", m.validation_loss);
  if (m.validation_accuracy) summary.add("accuracy/validation", *m.validation_accuracy);
  for (const CorpusLoss& corpus : m.by_corpus)
    summary.add(fmt::format("loss/validation/{}", corpus.path), corpus.loss);
  append(summary.event(m.step));
}

void EventFile::append(const std::string& event) {
  const std::string length = little_endian(static_cast<std::uint64_t>(event.size()));
  const std::string record =
      length + little_endian(masked(crc32c(length))) + event + little_endian(masked(crc32c(event)));
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) != record.size() ||
      std::fflush(file_.get()) != 0)
    throw IoError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
}

}  // namespace switchyard
