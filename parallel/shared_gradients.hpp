// Adds up the gradients of what several ranks of the expert axis hold of a parameter
// (ParameterSpec::shared): the replicas of an expert, each of which has those of its own rows.
// Every holder sends its gradient to every other one and adds up all in rank order, so that they
// end with the same bits, also in fp32, and update the same weights alike. (The replicas of whole
// buckets, along expert_data, are the business of GradientSync.)
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/parameter.hpp"

namespace switchyard {

class SharedGradients {
 public:
  // After store.allocate(); the store outlives it. Takes room for what a rank receives of the
  // largest parameter, whatever its holders come to be if they move; nothing where nothing is
  // shared.
  explicit SharedGradients(ParameterStore& store);

  // After the store rearranged parameters.
  void holders_changed();

  // The gradient of `parameter` is final on this rank. Collective over the expert axis for one of
  // which something is shared; nothing for others. Afterwards the stream has the sums.
  void add_up(const Parameter& parameter);

 private:
  // An index that this rank shares, by its place in the local tensor, and whose gradients are added
  // to it, in rank order: of what arrives, by row, or -1: this rank's own.
  struct Sum {
    std::int64_t held = 0;
    std::vector<std::int64_t> terms;
  };
  struct Exchange {
    // Rows of the local tensor for each rank, each a run, and rows of what arrives from each.
    std::vector<std::int64_t> sent_first, sent_count, received_first, received_count;
    std::vector<std::size_t> ends;
    std::vector<Sum> sums;
    std::int64_t num_received = 0;
  };
  static Exchange exchange_of(const Parameter& parameter, int rank, int num_ranks);
  void add_terms(const Sum& sum, const TensorView& own, const TensorView& received) const;

  ParameterStore& store_;
  Group& group_;
  std::vector<Exchange> exchanges_;  // by parameter, in the store's order
  Tensor received_;
};

}  // namespace switchyard
