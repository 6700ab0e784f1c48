// Ranks that compute more slowly than the others and so make all of them wait: a hot or throttled
// processor, a neighbour on the same cores, a slow disk under the loader. A rank's computation is
// what remains of a step without the time that it waits inside collectives.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

struct SlowRank {
  int rank = 0;
  double seconds = 0;  // its computation, a step
  double median = 0;   // of all ranks
};

// By seconds of computation a step, of each rank. Slow is what takes a quarter more than the median
// and 5 ms more; of an even number of ranks the lower one in the middle counts, so that of two
// ranks one can be slow.
std::vector<SlowRank> find_slow(std::span<const double> seconds);
// "rank 2 (host b) is slow: its computation takes 1.80 s a step, the median 1.00 s"
std::string describe(const SlowRank& slow, const std::string& host);

// Counts the steps of this rank and compares the ranks every so many: a step's figure travels with
// the report of the step after it.
class SlowRanks {
 public:
  SlowRanks(const CollectiveLog& log, std::int64_t every) : log_(log), every_(every) {}
  void begin_step();
  void end_step();
  // This rank's computation, in the mean of the steps that have ended since the ranks were
  // compared.
  double seconds_a_step() const;
  // Compares what all ranks said of these steps, once they are `every`: the sentences, the same on
  // all ranks. To be called at the same steps on all of them.
  std::vector<std::string> compare(std::span<const double> seconds_of_ranks,
                                   const Topology& topology);

 private:
  const CollectiveLog& log_;
  std::int64_t every_;
  std::int64_t num_steps_ = 0;
  std::int64_t begun_ = 0;  // nanoseconds
  std::int64_t waited_at_begin_ = 0;
  std::int64_t computed_ = 0;  // nanoseconds in the steps counted
};

}  // namespace switchyard
