#include "parallel/parameter.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t bytes_per_megabyte = 1 << 20;
constexpr std::int64_t part_granularity = 16;  // elements: 64 bytes, so that parts stay aligned

std::int64_t rounded_up(std::int64_t n, std::int64_t to) {
  return (n + to - 1) / to * to;
}

// Closes a bucket to further parameters: its replicas get equal parts.
void set_parts(Bucket& bucket) {
  const std::int64_t num_ranks = bucket.replicas->size();
  const std::int64_t used = bucket.entries.empty() ? 0 : bucket.entries.back().end;
  bucket.part = rounded_up((used + num_ranks - 1) / num_ranks, part_granularity);
  bucket.numel = bucket.part * num_ranks;
}

// values: `numel` elements from the flat global index `global_begin` on. Four neighbours share one
// counter of the generator, so the first and the last four may lie half outside.
void fill_normal(float* values, std::int64_t global_begin, std::int64_t numel, RandomKey key,
                 float std) {
  const std::int64_t first_four = global_begin / 4;
  const std::int64_t last_four = (global_begin + numel + 3) / 4;
  const auto fill_four = [&](std::int64_t four) {
    const std::array<float, 4> normal =
        normals(random_words(key, static_cast<std::uint64_t>(four), 0));
    const std::int64_t begin = std::max(four * 4, global_begin);
    const std::int64_t end = std::min(four * 4 + 4, global_begin + numel);
    for (std::int64_t i = begin; i < end; ++i)
      values[i - global_begin] = normal[static_cast<std::size_t>(i - four * 4)] * std;
  };
  constexpr std::int64_t fours_of_piece = 1024;
  const auto fill_piece = [&](std::int64_t piece, int) {
    const std::int64_t begin = first_four + piece * fours_of_piece;
    const std::int64_t end = std::min(last_four, begin + fours_of_piece);
    for (std::int64_t four = begin; four < end; ++four) fill_four(four);
  };
  kernels::for_each_piece((last_four - first_four + fours_of_piece - 1) / fours_of_piece,
                          fill_piece);
}

void initialize(const Parameter& parameter, std::uint64_t seed) {
  const ParameterSpec& spec = parameter.spec();
  const TensorView& value = parameter.value();
  if (value.empty()) return;
  kernels::write_from_host<float>(value, [&](std::span<float> values) {
    if (spec.initial == Initial::given) {
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = spec.initial_values[static_cast<std::size_t>(
            parameter.global_index(static_cast<std::int64_t>(i)))];
      return;
    }
    if (spec.initial != Initial::normal) {
      std::ranges::fill(values, spec.initial == Initial::ones ? 1.0f : 0.0f);
      return;
    }
    const RandomKey key = random_key(seed, "init " + spec.name);
    for (const SlicePiece& piece : parameter.pieces(0, value.numel()))
      for (std::int64_t stretch = 0; stretch < piece.count; ++stretch)
        fill_normal(values.data() + piece.local_begin + stretch * piece.local_stride,
                    piece.global_begin + stretch * piece.global_stride, piece.numel, key,
                    spec.initial_std);
  });
}

}  // namespace

std::string_view name_of(ParameterKind kind) {
  return kind == ParameterKind::state ? "state" : "trained";
}

Parameter::Parameter(ParameterSpec spec, int index, int layer)
    : spec_(std::move(spec)), index_(index), layer_(layer) {
  expect(spec_.global_shape.num_dims() > 0, "a parameter with dims");
  if (!spec_.slice) spec_.slice = Slice::whole(spec_.global_shape);
  spec_.slice->expect_inside(spec_.global_shape);
  expect(spec_.initial != Initial::given ||
             std::ssize(spec_.initial_values) == spec_.global_shape.numel(),
         "an initial value of each element");
}

std::vector<SlicePiece> Parameter::counted_pieces(std::int64_t begin, std::int64_t numel) const {
  if (counted_elsewhere_.empty()) return pieces(begin, numel);
  expect(slice().dim() == 0, "a shared index of a parameter's first dim");
  const std::int64_t of_index = spec_.global_shape.numel() / spec_.global_shape[0];
  std::vector<SlicePiece> counted;
  for (const SlicePiece& piece : pieces(begin, numel))
    for (std::int64_t done = 0, count = 0; done < piece.numel; done += count) {
      const std::int64_t at = piece.global_begin + done;
      count = std::min(piece.numel - done, of_index - at % of_index);
      if (std::ranges::binary_search(counted_elsewhere_, at / of_index)) continue;
      const std::int64_t local = piece.local_begin + done;
      if (!counted.empty() && counted.back().global_begin + counted.back().numel == at &&
          counted.back().local_begin + counted.back().numel == local)
        counted.back().numel += count;
      else
        counted.push_back({.global_begin = at, .local_begin = local, .numel = count});
    }
  return counted;
}

Parameter& ParameterStore::add(ParameterSpec spec) {
  expect(!allocated_, "all parameters to be added before allocate()");
  expect(names_.insert(spec.name).second, "no two parameters of one name; twice: " + spec.name);
  Parameter& added = parameters_.emplace_back(std::move(spec), static_cast<int>(parameters_.size()),
                                              num_layers() - 1);
  find_counted(added);
  return added;
}

void ParameterStore::find_counted(Parameter& parameter) const {
  const int rank = mesh_.index(Axis::expert);
  parameter.counted_elsewhere_.clear();
  for (const SharedIndex& shared : parameter.spec().shared)
    if (rank != shared.ranks.front() && std::ranges::find(shared.ranks, rank) != shared.ranks.end())
      parameter.counted_elsewhere_.push_back(shared.index);
}

int ParameterStore::begin_layer() {
  expect(!allocated_ && (num_layers_ > 0 || parameters_.empty()),
         "layers begun before their parameters are added");
  return num_layers_++;
}

std::vector<Bucket> ParameterStore::planned_buckets(std::int64_t bucket_bytes, BucketEnd end) {
  const std::int64_t limit = bucket_bytes / size_of(DType::f32);
  std::vector<Bucket> buckets;
  // The bucket being filled, by axis and kind.
  std::array<std::array<std::optional<std::size_t>, 2>, num_axes> open;
  const auto takes = [&](const Bucket& bucket, const Parameter& parameter) {
    const BucketEntry& last = bucket.entries.back();
    if (end == BucketEnd::layer && last.parameter->layer() != parameter.layer()) return false;
    return rounded_up(last.end, part_granularity) + parameter.local_shape().numel() <= limit;
  };
  for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
    const Axis axis = parameter->spec().replicas;
    const ParameterKind kind = parameter->spec().kind;
    std::optional<std::size_t>& current =
        open[static_cast<std::size_t>(axis)][static_cast<std::size_t>(kind)];
    if (!current || !takes(buckets[*current], *parameter)) {
      current = buckets.size();
      Bucket& bucket = buckets.emplace_back();
      bucket.axis = axis;
      bucket.kind = kind;
      bucket.replicas = &mesh_.group(axis);
    }
    std::vector<BucketEntry>& entries = buckets[*current].entries;
    // Each parameter begins at a cache line: products write whole lines of its gradient.
    const std::int64_t begin =
        entries.empty() ? 0 : rounded_up(entries.back().end, part_granularity);
    entries.push_back({&*parameter, begin, begin + parameter->local_shape().numel()});
  }
  // A bucket is complete with its earliest parameter, which a backward pass reaches last.
  std::stable_sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return a.entries.back().parameter->index() > b.entries.back().parameter->index();
  });
  return buckets;
}

void ParameterStore::allocate_bucket(Bucket& bucket) {
  set_parts(bucket);
  const bool trained = bucket.kind == ParameterKind::trained;
  bucket.values =
      Tensor(device_, trained ? Purpose::parameter : Purpose::state, DType::f32, {bucket.numel});
  if (trained)
    bucket.gradients =
        Tensor(device_, Purpose::gradient, exact_ ? DType::i64 : DType::f32, {bucket.numel});
  for (const BucketEntry& entry : bucket.entries) {
    Parameter& parameter = *entry.parameter;
    const Shape shape = parameter.local_shape();
    parameter.value_ = bucket.values->slice_rows(entry.begin, entry.end).reshape(shape);
    if (!trained) continue;
    parameter.gradient_ = bucket.gradients->slice_rows(entry.begin, entry.end).reshape(shape);
    if (!exact_) continue;
    parameter.exact_ = *exact_;
    parameter.exact_.overflow = overflows_->slice_rows(parameter.index(), parameter.index() + 1);
  }
}

void ParameterStore::allocate(std::int64_t bucket_bytes, BucketEnd end) {
  expect(!allocated_, "allocate() to be called once");
  allocated_ = true;
  buckets_ = planned_buckets(
      bucket_bytes > 0 ? bucket_bytes : mesh_.config().bucket_megabytes * bytes_per_megabyte, end);
  if (exact_) {
    kernels::reserve_exact_sums(device_);
    overflows_ = Tensor(device_, Purpose::gradient, DType::i32, {std::ssize(parameters_)});
  }
  for (Bucket& bucket : buckets_) allocate_bucket(bucket);
}

void ParameterStore::initialize(std::uint64_t seed) {
  expect(allocated_, "allocate() to be called before initialize()");
  if (device_.is_plan()) return;
  for (const Parameter& parameter : parameters_) switchyard::initialize(parameter, seed);
}

void ParameterStore::zero_gradients() {
  for (const Bucket& bucket : buckets_)
    if (bucket.numel > 0 && bucket.kind == ParameterKind::trained)
      kernels::fill_zero(bucket.gradients);
  if (exact_) kernels::fill_zero(overflows_);
}

void ParameterStore::rearrange(Parameter& parameter, std::span<const std::int64_t> indices,
                               std::vector<SharedIndex> shared) {
  Slice slice = Slice::of(parameter.slice().dim(), indices);
  expect(parameter.spec().moves && slice.num_held() == parameter.slice().num_held() &&
             num_replicas_of(shared) == num_replicas_of(parameter.spec().shared),
         "of a parameter that moves as many indices as the rank held before, and as many replicas");
  slice.expect_inside(parameter.spec().global_shape);
  parameter.spec_.slice = std::move(slice);
  parameter.spec_.shared = std::move(shared);
  find_counted(parameter);
}

std::vector<OwnedRange> ParameterStore::owned_ranges() const {
  std::vector<OwnedRange> ranges;
  for (const Bucket& bucket : buckets_) {
    for (const BucketEntry& entry : bucket.entries) {
      const std::int64_t begin = std::max(entry.begin, bucket.owned_begin());
      const std::int64_t end = std::min(entry.end, bucket.owned_end());
      if (begin >= end) continue;
      ranges.push_back({entry.parameter, &bucket, begin, begin - entry.begin, end - begin});
    }
  }
  return ranges;
}

std::int64_t ParameterStore::num_global_elements(ParameterKind kind) const {
  std::int64_t numel = 0;
  for (const Parameter& parameter : parameters_)
    if (parameter.spec().kind == kind) numel += parameter.spec().global_shape.numel();
  return numel;
}

}  // namespace switchyard
