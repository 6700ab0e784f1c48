// RUN/events/: the figures of metrics.jsonl as TensorBoard reads them. Each start begins a file; a
// reader drops the steps of earlier files from that start's first step on.
//
// The format: records of TensorFlow's TFRecord (length, masked CRC-32C of the length, data, masked
// CRC-32C of the data; little-endian), each an Event in the wire format of protocol buffers
// (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto). CRC-32C: RFC 3720,
// appendix B.4.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "trainer/run/meters/metrics.hpp"

namespace switchyard {

std::uint32_t crc32c(std::string_view bytes);

class EventFile {
 public:
  // A new file in `folder`, which is made. first_step: the next step to be taken. anew: what
  // another course left there is removed. IoError.
  EventFile(const std::string& folder, std::int64_t first_step, bool anew);

  // Handed to the system at once. IoError.
  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);

 private:
  void append(const std::string& event);
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace switchyard
