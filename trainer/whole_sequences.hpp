// The sequences of a step as all ranks hold them together: which sequences each rank has, and which
// positions of them. For files that show the parts in the ranks' files as whole tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "data/loader.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

class WholeSequences {
 public:
  // ids: of this rank's sequences of the step, in the order of its rows; as many on every rank.
  // Collective.
  WholeSequences(std::span<const std::int64_t> ids, const BatchLayout& layout, Group& world);

  // Of all ranks, ascending, each once.
  const std::vector<std::int64_t>& ids() const { return ids_; }
  // Shows the dataset of `rank` in `file` at its place in `whole`, whose dims `dim` and dim + 1 are
  // the step's sequences, in the order of ids(), and the positions; the rank's are its own.
  void map_rank(hdf5::VirtualDataset& whole, int rank, int dim, const std::string& file,
                const std::string& dataset) const;

 private:
  std::int64_t row_of(std::int64_t id) const;

  std::int64_t num_local_;              // sequences of a rank
  std::vector<std::int64_t> all_ids_;   // by rank
  std::vector<std::int64_t> segments_;  // by rank: begin and count of two segments
  std::vector<std::int64_t> ids_;
};

}  // namespace switchyard
