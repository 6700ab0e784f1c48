#include "trainer/batch_source.hpp"

namespace switchyard {

RandomSource::RandomSource(const BatchLayout& layout, std::int64_t vocab_size, std::uint64_t seed)
    : layout_(layout), vocab_size_(vocab_size), key_(random_key(seed, "random tokens")) {}

Batch RandomSource::next() {
  Batch batch;
  const std::int64_t first = micro_step_++ * layout_.micro_batch * layout_.data_size +
                             layout_.data_rank * layout_.micro_batch;
  const auto token = [&](std::int64_t sequence, std::int64_t position) {
    const auto words = random_words(key_, static_cast<std::uint64_t>(sequence),
                                    static_cast<std::uint64_t>(position));
    return static_cast<std::int32_t>(words[0] % static_cast<std::uint64_t>(vocab_size_));
  };
  for (std::int64_t row = 0; row < layout_.micro_batch; ++row) {
    batch.sequence_ids.push_back(first + row);
    for (const PositionRange& segment : layout_.local_segments())
      for (std::int64_t i = 0; i < segment.count; ++i) {
        batch.tokens.push_back(token(first + row, segment.begin + i));
        batch.targets.push_back(token(first + row, segment.begin + i + 1));
      }
  }
  if (layout_.with_weights) batch.weights.assign(batch.targets.size(), 1);
  if (layout_.with_documents) batch.document_starts.resize(batch.sequence_ids.size());
  return batch;
}

}  // namespace switchyard
