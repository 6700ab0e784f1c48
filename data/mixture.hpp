// Several corpora in one run. Sample g of the run is a sequence of one of them by a formula of g,
// the shares and the seed alone, so the position in the data stays one number, and batches are the
// same on every layout and after every resume.
//
// Samples come in blocks of 65536 places. Of a block every corpus has its share of places (to
// 1/131072, one at least), mixed by a pseudo-random permutation, the same for all blocks. So after
// n samples a corpus has had n times its share, within the bound of drawing without putting back:
// sqrt(n share (1 - share)) is a standard deviation, and at the end of a block there is none. Each
// corpus is read in order: all of its sequences once, then again in another order.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/sampler.hpp"

namespace switchyard {

// One corpus of data.mixture.
struct MixtureEntry {
  std::string path;        // a token file
  double amount = 0;       // above 0
  bool is_epochs = false;  // amount counts passes over the corpus, else it is a weight
  friend bool operator==(const MixtureEntry&, const MixtureEntry&) = default;
};

// "web.h5 0.7, code.h5 0.3" (weights, of any sum) or "web.h5 1 epoch, code.h5 4 epochs" (as often
// as each is read while the others are as often as they say). "none" and "" are no mixture.
// ConfigError says what is wrong.
std::vector<MixtureEntry> parse_mixture(std::string_view text);

// DataError if a corpus has another tokenizer than the token file that names the run's (data.path).
void require_same_tokenizer(const TokenFile& corpus, const TokenFile& named);

class Mixture {
 public:
  // num_sequences: of each entry's corpus.
  Mixture(std::span<const MixtureEntry> entries, std::span<const std::int64_t> num_sequences,
          std::uint64_t seed);

  struct Place {
    std::size_t corpus = 0;
    std::int64_t sample = 0;  // which of this corpus's samples: position sample % num_sequences of
                              // epoch sample / num_sequences
  };
  Place operator()(std::int64_t sample) const;
  double share(std::size_t corpus) const;

  static constexpr std::int64_t block = 65536;

 private:
  std::vector<std::int64_t> quotas_;  // places of each corpus in a block
  std::vector<Place> places_;         // of the first block
};

}  // namespace switchyard
