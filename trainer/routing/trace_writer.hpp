// Writes traces of routing (trace_format.hpp) of the steps that `trace` names. Between steps each
// rank writes its own tokens to its own file, uncompressed. A folder takes its name when it is
// complete: after the last of steps that follow each other, and when somebody asks for it, as
// before a checkpoint, so that what comes before a checkpoint is never lost.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "parallel/group/group.hpp"
#include "trainer/routing/routing_record.hpp"

namespace switchyard {

class TraceWriter {
 public:
  // The run goes on after restored_step: what an earlier course traced after that, or left half
  // done, is removed. Collective, as all functions but wants(); IoErrors are those of any rank.
  TraceWriter(const Config& config, const BatchLayout& layout, std::int64_t restored_step,
              Group& world);
  ~TraceWriter();

  bool wants(std::int64_t step) const;
  // After a step that is wanted, which `record` has observed.
  void write(std::int64_t step, const RoutingRecord& record);
  // After each step, wanted or not: gives what is complete its name. Its path when it has just
  // become so, else empty.
  std::string advance(std::int64_t step);
  // Whatever is there is complete; as advance().
  std::string finish();

 private:
  struct Step {
    std::int64_t step = 0;
    std::vector<std::int64_t> sequence_ids;  // of this rank
  };

  std::string temporary_folder() const;
  void open_file();
  void write_step(std::int64_t step, const RoutingRecord& record);
  void write_whole_file();
  void publish(const std::string& path);

  std::string folder_;
  std::vector<std::int64_t> wanted_;
  std::vector<std::int64_t> layers_;
  std::int64_t num_experts_, top_k_;
  bool may_drop_;
  BatchLayout layout_;
  Group& world_;
  std::vector<Step> steps_;           // under way
  std::unique_ptr<hdf5::File> file_;  // of this rank
};

}  // namespace switchyard
