#include "data/loader.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Micro-batches made ahead of need.
constexpr std::size_t prefetch_depth = 4;

Batch empty_batch(const BatchLayout& layout) {
  const auto num_tokens = static_cast<std::size_t>(layout.micro_batch * layout.local_length());
  Batch batch;
  batch.tokens.resize(num_tokens);
  batch.targets.resize(num_tokens);
  batch.sequence_ids.resize(static_cast<std::size_t>(layout.micro_batch));
  if (layout.with_weights) batch.weights.resize(num_tokens);
  return batch;
}

// The number g of the first row of a micro-step on this data rank.
std::int64_t first_sample(const BatchLayout& layout, std::int64_t step, std::int64_t micro_step) {
  return step * layout.global_batch + micro_step * (layout.micro_batch * layout.data_size) +
         layout.data_rank * layout.micro_batch;
}

// The packed sequences of a split, with their documents where the layout asks for them.
PackedSequences open_sequences(const TokenFile& file, Split split, const BatchLayout& layout) {
  PackedSequences sequences(file, split, layout.sequence_length);
  if (layout.with_documents) sequences.load_documents();
  return sequences;
}

void read_row(const PackedSequences& sequences, const BatchLayout& layout, std::int64_t sequence,
              std::int64_t row, Batch& batch) {
  auto next = static_cast<std::size_t>(row * layout.local_length());
  for (const PositionRange& segment : layout.local_segments()) {
    const auto count = static_cast<std::size_t>(segment.count);
    sequences.read(sequence, segment.begin, std::span(batch.tokens).subspan(next, count),
                   std::span(batch.targets).subspan(next, count));
    if (layout.with_weights)
      sequences.read_weights(sequence, segment.begin,
                             std::span(batch.weights).subspan(next, count));
    next += count;
  }
  if (layout.with_documents) batch.document_starts.push_back(sequences.document_starts(sequence));
}

// A token file's split in training order.
struct Corpus {
  Corpus(const std::string& path, Split split, const BatchLayout& layout, std::uint64_t seed)
      : file(path),
        sequences(open_sequences(file, split, layout)),
        order(sequences.num_sequences(), seed) {}
  // Sample number `sample` of this corpus.
  std::int64_t sequence(std::int64_t sample) const {
    const std::int64_t size = sequences.num_sequences();
    return order(sample / size, sample % size);
  }

  TokenFile file;
  PackedSequences sequences;  // borrows the file
  EpochPermutation order;
};
using Corpora = std::vector<std::unique_ptr<const Corpus>>;

// The corpora of a mixture, each in an order of its own.
Corpora open_corpora(const TokenFile& file, Split split, const BatchLayout& layout,
                     std::uint64_t seed, const std::vector<MixtureEntry>& mixture) {
  Corpora corpora;
  for (const MixtureEntry& entry : mixture) {
    const std::uint64_t own_seed = random_words(random_key(seed, "corpus"), corpora.size(), 0)[0];
    corpora.push_back(std::make_unique<Corpus>(entry.path, split, layout, own_seed));
    require_same_tokenizer(corpora.back()->file, file);
  }
  return corpora;
}

std::vector<std::int64_t> sizes_of(const Corpora& corpora) {
  std::vector<std::int64_t> sizes;
  for (const auto& corpus : corpora) sizes.push_back(corpus->sequences.num_sequences());
  return sizes;
}

}  // namespace

std::vector<PositionRange> BatchLayout::local_segments() const {
  if (!segments.empty()) return segments;
  return {{.begin = 0, .count = sequence_length}};
}

std::int64_t BatchLayout::local_length() const {
  std::int64_t length = 0;
  for (const PositionRange& segment : local_segments()) length += segment.count;
  return length;
}

void BatchLayout::validate() const {
  std::int64_t end = 0;
  for (const PositionRange& segment : segments) {
    expect(segment.begin >= end && segment.count >= 0 &&
               segment.begin + segment.count <= sequence_length,
           "ascending segments inside the sequence");
    end = segment.begin + segment.count;
  }
  expect(data_size >= 1 && data_rank >= 0 && data_rank < data_size, "a rank of the data axis");
  if (sequence_length < 1)
    throw ConfigError(fmt::format("sequence_length = {}: must be at least 1", sequence_length));
  const std::int64_t micro_step = micro_batch * data_size;
  if (global_batch < 1 || micro_batch < 1 || global_batch % micro_step != 0)
    throw ConfigError(fmt::format(
        "global_batch = {} must be a positive multiple of micro_batch x data ranks = {} x {} = {}",
        global_batch, micro_batch, data_size, micro_step));
}

struct Loader::State {
  State(const std::string& path, Split split, const BatchLayout& batch_layout, std::uint64_t seed,
        const std::vector<MixtureEntry>& entries)
      : layout(batch_layout) {
    if (entries.empty()) {
      corpora.push_back(std::make_unique<Corpus>(path, split, layout, seed));
    } else {
      named = std::make_unique<TokenFile>(path);
      corpora = open_corpora(*named, split, layout, seed, entries);
      mixture.emplace(entries, sizes_of(corpora), seed);
    }
    worker = std::jthread([this](const std::stop_token& stop) { work(stop); });
  }

  Batch make(std::int64_t number, std::int64_t first_sequence);
  // The corpus and its sequence that sample g is.
  std::pair<const Corpus&, std::int64_t> find(std::int64_t sample) const;
  double targets_of_step(std::int64_t first_sample);
  void work(const std::stop_token& stop);

  const BatchLayout layout;
  Corpora corpora;
  std::unique_ptr<const TokenFile> named;  // data.path, where it is not the one corpus
  std::optional<Mixture> mixture;          // of several corpora
  // Of the step whose batches the thread makes: its first sample and its targets.
  std::int64_t counted_step = -1;
  double counted_targets = 0;

  std::mutex mutex;                     // guards everything below
  std::condition_variable_any room;     // the queue got shorter, or the position moved
  std::condition_variable_any arrival;  // the queue got longer, or an error came
  std::deque<Batch> queue;
  std::int64_t next_out = 0;   // number of the micro-batch next() gives; step * micro-steps + a
  std::int64_t next_in = 0;    // number of the micro-batch the thread makes next
  std::int64_t origin = 0;     // g of step 0, had all steps taken global_batch sequences
  std::int64_t num_seeks = 0;  // a batch made before a seek is thrown away
  std::exception_ptr error;

  std::jthread worker;  // last: dies first
};

// Micro-batch `number` of this rank, counted from the beginning of the run; g counts from
// `first_sequence` on.
Batch Loader::State::make(std::int64_t number, std::int64_t first_sequence) {
  const std::int64_t step = number / layout.num_micro_steps();
  const std::int64_t first =
      first_sequence + first_sample(layout, step, number % layout.num_micro_steps());
  Batch batch = empty_batch(layout);
  for (std::int64_t row = 0; row < layout.micro_batch; ++row) {
    const auto [corpus, sequence] = find(first + row);
    read_row(corpus.sequences, layout, sequence, row, batch);
    batch.sequence_ids[static_cast<std::size_t>(row)] = first + row;
  }
  if (layout.with_weights)
    batch.num_targets = targets_of_step(first_sequence + step * layout.global_batch);
  return batch;
}

std::pair<const Corpus&, std::int64_t> Loader::State::find(std::int64_t sample) const {
  const Mixture::Place place = mixture ? (*mixture)(sample) : Mixture::Place{0, sample};
  const Corpus& corpus = *corpora[place.corpus];
  return {corpus, corpus.sequence(place.sample)};
}

// Every rank counts the whole step, a byte a token: that costs less than an exchange.
double Loader::State::targets_of_step(std::int64_t first_sample) {
  if (counted_step == first_sample) return counted_targets;
  std::int64_t count = 0;
  for (std::int64_t sample = first_sample; sample < first_sample + layout.global_batch; ++sample) {
    const auto [corpus, sequence] = find(sample);
    count += corpus.sequences.num_targets(sequence);
  }
  counted_step = first_sample;
  counted_targets = static_cast<double>(count);
  return counted_targets;
}

void Loader::State::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex);
  while (room.wait(lock, stop, [&] { return queue.size() < prefetch_depth && !error; }) &&
         !stop.stop_requested()) {
    const std::int64_t number = next_in;
    const std::int64_t seeks = num_seeks;
    const std::int64_t first_sequence = origin;
    Batch batch;
    std::exception_ptr failure;
    lock.unlock();
    try {
      batch = make(number, first_sequence);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (seeks != num_seeks) continue;
    error = failure;
    if (!failure) {
      queue.push_back(std::move(batch));
      ++next_in;
    }
    arrival.notify_one();
  }
}

Loader::Loader(const std::string& path, Split split, const BatchLayout& layout, std::uint64_t seed,
               const std::vector<MixtureEntry>& mixture) {
  layout.validate();
  state_ = std::make_unique<State>(path, split, layout, seed, mixture);
}

Loader::~Loader() = default;

const TokenFile& Loader::file() const {
  return state_->named ? *state_->named : state_->corpora.front()->file;
}

std::int64_t Loader::num_sequences() const {
  const std::vector<std::int64_t> sizes = sizes_of(state_->corpora);
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
}

std::int64_t Loader::step() const {
  const std::lock_guard lock(state_->mutex);
  return state_->next_out / state_->layout.num_micro_steps();
}

Batch Loader::next() {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.arrival.wait(lock, [&] { return !state.queue.empty() || state.error; });
  // Batches before the one that failed are good.
  if (state.queue.empty()) std::rethrow_exception(state.error);
  Batch batch = std::move(state.queue.front());
  state.queue.pop_front();
  ++state.next_out;
  state.room.notify_one();
  return batch;
}

void Loader::seek(std::int64_t step, std::int64_t position) {
  expect(step >= 0 && position >= 0, "a step and a position to seek to");
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  state.origin = position - step * state.layout.global_batch;
  state.next_out = state.next_in = step * state.layout.num_micro_steps();
  state.queue.clear();
  state.error = nullptr;
  ++state.num_seeks;
  state.room.notify_one();
}

FixedBatches::FixedBatches(const TokenFile& file, Split split, const BatchLayout& layout,
                           std::int64_t num_sequences)
    : sequences_(open_sequences(file, split, layout)),
      layout_(layout),
      num_sequences_(num_sequences > 0 ? std::min(num_sequences, sequences_.num_sequences())
                                       : sequences_.num_sequences()) {
  layout.validate();
  if (!layout.with_weights) {
    num_targets_ = static_cast<double>(num_sequences_ * layout.sequence_length);
    return;
  }
  for (std::int64_t sequence = 0; sequence < num_sequences_; ++sequence)
    num_targets_ += static_cast<double>(sequences_.num_targets(sequence));
  if (num_targets_ == 0)
    throw DataError(fmt::format("{}: the loss mask of the {} split lets no target count",
                                file.path(), name_of(split)));
}

std::int64_t FixedBatches::num_micro_steps() const {
  const std::int64_t at_once = layout_.micro_batch * layout_.data_size;
  return (num_sequences_ + at_once - 1) / at_once;
}

Batch FixedBatches::batch(std::int64_t micro_step) const {
  expect(micro_step >= 0 && micro_step < num_micro_steps(), "a micro-step of the evaluation");
  const std::int64_t at_once = layout_.micro_batch * layout_.data_size;
  const std::int64_t first = micro_step * at_once;
  const std::int64_t count = std::min(at_once, num_sequences_ - first);
  const std::int64_t begin = first + count * layout_.data_rank / layout_.data_size;
  const std::int64_t end = first + count * (layout_.data_rank + 1) / layout_.data_size;
  Batch batch = empty_batch(layout_);
  std::fill(batch.sequence_ids.begin(), batch.sequence_ids.end(), -1);
  for (std::int64_t row = 0; row < end - begin; ++row) {
    read_row(sequences_, layout_, begin + row, row, batch);
    batch.sequence_ids[static_cast<std::size_t>(row)] = begin + row;
  }
  if (layout_.with_documents) batch.document_starts.resize(batch.sequence_ids.size());
  batch.num_padding = layout_.micro_batch - (end - begin);
  if (layout_.with_weights) batch.num_targets = num_targets_;
  return batch;
}

}  // namespace switchyard
