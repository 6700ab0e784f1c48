#include "bench/mixer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "bench/measured_mixers.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/recurrence/linear_recurrence.hpp"
#include "kernels/rows/elementwise.hpp"
#include "parallel/context/context_attention.hpp"
#include "tensor/position_range.hpp"

namespace switchyard::bench {

namespace {

struct Size {
  std::int64_t length = 0;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t chunk = 0;
};

// One kind over one sequence, on the processor or, to count the work, on the plan device.
class Problem {
 public:
  virtual ~Problem() = default;
  virtual void forward() = 0;
  virtual void backward() = 0;
};

class FullProblem final : public Problem {
 public:
  FullProblem(Device& device, const Size& size, DType precision)
      : shape_{.num_sequences = 1,
               .query_length = size.length,
               .key_length = size.length,
               .num_heads = size.num_heads,
               .num_kv_heads = size.num_heads,
               .head_dim = size.head_dim,
               .scale = 1.0f / std::sqrt(static_cast<float>(size.head_dim))},
        first_(device, Purpose::workspace, DType::i32, {size.length}),
        end_(device, Purpose::workspace, DType::i32, {size.length}),
        ranges_(kernels::causal_ranges(
            {.num_sequences = 1, .query_length = size.length, .key_length = size.length}, first_,
            end_)),
        lse_(device, Purpose::activation, DType::f32, {size.length, size.num_heads}),
        delta_(device, Purpose::activation, DType::f32, lse_->shape),
        workspace_(device, Purpose::workspace, DType::u8,
                   {kernels::attention_workspace_bytes(shape_, precision, device.target())}) {
    std::uint32_t stream = 0;
    for (Tensor* each : {&q_, &k_, &v_, &dout_, &out_, &dq_, &dk_, &dv_}) {
      *each = Tensor(device, Purpose::activation, precision,
                     {size.length, size.num_heads * size.head_dim});
      fill_random(*each, stream++);
    }
    forward();  // the backward pass reads its results
  }
  void forward() override {
    kernels::attention_forward(shape_, q_, k_, v_, ranges_, out_, lse_, kernels::Merge::replace,
                               workspace_);
  }
  void backward() override {
    kernels::attention_delta(out_, dout_, shape_.head_dim, delta_);
    kernels::attention_backward(shape_, q_, k_, v_, ranges_, lse_, delta_, dout_, {dq_, dk_, dv_},
                                workspace_);
  }

 private:
  kernels::AttentionShape shape_;
  Tensor first_, end_;
  kernels::KeyRanges ranges_;
  Tensor lse_, delta_, workspace_;
  Tensor q_, k_, v_, out_, dout_, dq_, dk_, dv_;
};

// By a pattern, as a layer has it.
class SparseProblem final : public Problem {
 public:
  SparseProblem(Device& device, const kernels::KeyPattern& pattern, const Size& size,
                DType precision)
      : pattern_(pattern),
        mesh_(device, 0, 1, {}),
        attention_(device, mesh_,
                   {.num_sequences = 1,
                    .num_heads = size.num_heads,
                    .num_kv_heads = size.num_heads,
                    .head_dim = size.head_dim,
                    .scale = 1.0f / std::sqrt(static_cast<float>(size.head_dim))},
                   precision, SequenceSplit(size.length), {&pattern_, 1}, Progress::none),
        lse_(device, Purpose::activation, DType::f32, {size.length, size.num_heads}) {
    std::uint32_t stream = 0;
    for (Tensor* each : {&q_, &k_, &v_, &dout_, &out_, &dq_, &dk_, &dv_}) {
      *each = Tensor(device, Purpose::activation, precision,
                     {size.length, size.num_heads * size.head_dim});
      fill_random(*each, stream++);
    }
    if (pattern_.chosen_blocks > 0)
      chosen_ = Tensor(device, Purpose::activation, DType::i32,
                       {size.length, size.num_heads * pattern_.chosen_blocks});
    if (pattern_.has_classes()) {
      directions_ = Tensor(device, Purpose::workspace, DType::f32,
                           {pattern_.hash_rounds * pattern_.num_buckets / 2, size.head_dim});
      fill_random(directions_, stream++);
    }
    forward();
  }
  void forward() override { attention_.forward(pattern_, {}, inputs(), out_, lse_, {}); }
  void backward() override {
    attention_.backward(pattern_, {}, TensorView{}, inputs(), out_, lse_, dout_, {dq_, dk_, dv_},
                        {});
  }

 private:
  AttentionInputs inputs() const {
    AttentionInputs inputs{q_, k_, v_};
    if (!chosen_.empty()) inputs.chosen = chosen_;
    if (!directions_.empty()) inputs.directions = directions_;
    return inputs;
  }

  kernels::KeyPattern pattern_;
  Mesh mesh_;
  ContextAttention attention_;
  Tensor lse_, q_, k_, v_, out_, dout_, dq_, dk_, dv_, chosen_, directions_;
};

// Numbers from `least` to `most`, each times `factor`.
void fill_between(const TensorView& view, float least, float most, std::uint32_t stream) {
  fill_random(view, stream);
  if (view.device->is_plan()) return;
  std::vector<float> values(static_cast<std::size_t>(view.numel()));
  kernels::copy_to_host<float>(view, values);
  for (float& value : values) value = least + (most - least) * (value + 1) / 2;
  kernels::copy_from_host<float>(values, view);
}

bool has_delta_rule(MixerKind kind) {
  return kind == MixerKind::delta || kind == MixerKind::gated_delta;
}

class RecurrentProblem final : public Problem {
 public:
  RecurrentProblem(Device& device, MixerKind kind, const Size& size, DType precision)
      : run_{0, size.length}, shape_{shape_of(kind, size)} {
    const auto rows = [&](DType dtype, std::int64_t cols) {
      return Tensor(device, Purpose::activation, dtype, {size.length, cols});
    };
    std::uint32_t stream = 0;
    for (Tensor* each : {&q_, &k_, &v_, &dout_, &out_, &dq_, &dk_, &dv_}) {
      *each = rows(precision, size.num_heads * size.head_dim);
      fill_random(*each, stream++);
    }
    if (kind == MixerKind::linear) {  // features are above 0; few decimals, as bf16 has them
      const Tensor above(device, Purpose::workspace, DType::f32, q_->shape);
      fill_between(above, 0.01f, 1.0f, stream++);
      for (const Tensor* each : {&q_, &k_})
        if (!device.is_plan()) kernels::copy(above, *each);
      denominators_ = rows(DType::f32, size.num_heads);
    }
    if (kind == MixerKind::retention || kind == MixerKind::lightning) {
      gates_ = Tensor(device, Purpose::activation, DType::f32, {1, size.num_heads});
      fill_between(gates_, -0.05f, -0.001f, stream++);
    }
    if (kind == MixerKind::ssd || kind == MixerKind::gated_delta) {
      gates_ = rows(DType::f32, size.num_heads);
      dgates_ = rows(DType::f32, size.num_heads);
      fill_between(gates_, -0.05f, -0.001f, stream++);
    }
    if (kind == MixerKind::ssd) {
      steps_ = rows(DType::f32, size.num_heads);
      dsteps_ = rows(DType::f32, size.num_heads);
      skip_ = Tensor(device, Purpose::activation, DType::f32, {size.num_heads});
      dskip_ = Tensor(device, Purpose::activation, DType::f32, {size.num_heads});
      fill_between(steps_, 0.001f, 0.1f, stream++);
      fill_between(skip_, 1.0f, 1.0f, stream++);
      fill_between(dskip_, 0.0f, 0.0f, stream++);
    }
    if (has_delta_rule(kind)) {
      betas_ = rows(DType::f32, size.num_heads);
      dbetas_ = rows(DType::f32, size.num_heads);
      // Keys have a length of some sqrt(head_dim / 3): no step overshoots.
      fill_between(betas_, 0.0f, 1.0f / static_cast<float>(size.head_dim), stream++);
    }
    workspace_ = Tensor(device, Purpose::workspace, DType::u8,
                        {kernels::recurrence_workspace_bytes(shape_, device.target())});
    forward();
  }
  void forward() override {
    kernels::recurrence_forward(shape_, inputs(), {}, outputs(), {}, workspace_);
  }
  void backward() override {
    kernels::recurrence_backward(shape_, inputs(), {}, outputs(), dout_, {},
                                 {.dq = keys(dq_),
                                  .dk = keys(dk_),
                                  .dv = dv_,
                                  .dgates = view_of(dgates_),
                                  .dbetas = view_of(dbetas_),
                                  .dsteps = view_of(dsteps_),
                                  .dskip = view_of(dskip_)},
                                 {}, workspace_);
  }

 private:
  kernels::RecurrenceShape shape_of(MixerKind kind, const Size& size) const {
    return {.num_sequences = 1,
            .runs = {&run_, 1},
            .num_heads = size.num_heads,
            .num_groups = kind == MixerKind::ssd ? 1 : size.num_heads,
            .key_width = size.head_dim,
            .value_width = size.head_dim,
            .chunk = size.chunk,
            .scale = 1.0f / std::sqrt(static_cast<float>(size.head_dim)),
            .delta = has_delta_rule(kind),
            .normalized = kind == MixerKind::linear};
  }
  static TensorView view_of(const Tensor& tensor) {
    return tensor.empty() ? TensorView{} : tensor.view();
  }
  TensorView keys(const Tensor& all) const { return all->slice_cols(0, shape_.key_cols()); }
  kernels::RecurrenceInputs inputs() const {
    return {.q = keys(q_),
            .k = keys(k_),
            .v = v_,
            .gates = view_of(gates_),
            .betas = view_of(betas_),
            .steps = view_of(steps_),
            .skip = view_of(skip_)};
  }
  kernels::RecurrenceOutputs outputs() const { return {out_, view_of(denominators_)}; }

  PositionRange run_;
  kernels::RecurrenceShape shape_;
  Tensor q_, k_, v_, out_, dout_, dq_, dk_, dv_, denominators_;
  Tensor gates_, betas_, steps_, skip_, dgates_, dbetas_, dsteps_, dskip_;
  Tensor workspace_;
};

std::unique_ptr<Problem> make_problem(Device& device, const MixerConfig& mixer, const Size& size,
                                      DType precision) {
  if (mixer.kind == MixerKind::full) return std::make_unique<FullProblem>(device, size, precision);
  if (mixer.is_attention())
    return std::make_unique<SparseProblem>(device, mixer.key_pattern(0), size, precision);
  return std::make_unique<RecurrentProblem>(device, mixer.kind, size, precision);
}

// Median seconds forward, by length.
using Seconds = std::map<std::int64_t, double>;

// The length from which on `mixer` is quicker than `full` at all longer ones that were measured,
// between two of them by powers of the length; none: nowhere.
std::optional<double> crossover(const Seconds& full, const Seconds& mixer) {
  std::optional<double> found;
  double before = 0, ratio_before = 0;
  for (const auto& [length, seconds] : full) {
    const double ratio = mixer.at(length) / seconds;
    const auto here = static_cast<double>(length);
    if (ratio > 1)
      found.reset();
    else if (!found)
      found = before == 0 ? here
                          : before * std::pow(here / before, std::log(ratio_before) /
                                                                 std::log(ratio_before / ratio));
    before = here;
    ratio_before = ratio;
  }
  return found;
}

struct Ceilings {
  double products = 0;  // FLOP/s
  double copies = 0;    // B/s
};

class Benchmark {
 public:
  Benchmark(Group& world, const MixerOptions& options, const Repeats& repeats, Report& report)
      : world_(world), options_(options), repeats_(repeats), report_(report) {}

  void run(DType precision, const Ceilings& ceilings) {
    std::map<std::string, Seconds> forward;
    for (const std::int64_t length : options_.lengths) {
      seconds_of_pair_.clear();
      for (const MixerKind kind : options_.kinds)
        for (const Measured& measured : measured_of(kind))
          forward[measured.name][length] = measure_kind(measured, length, precision, ceilings);
    }
    const std::string full(name_of(MixerKind::full));
    if (!forward.contains(full) || options_.lengths.size() < 2) return;
    for (const auto& [name, seconds] : forward)
      if (name != full) tell(precision, name, crossover(forward.at(full), seconds));
  }

 private:
  // Returns the median of the forward pass.
  double measure_kind(const Measured& measured, std::int64_t length, DType precision,
                      const Ceilings& ceilings) {
    const Size size{length, options_.num_heads, options_.head_dim, options_.chunk};
    const std::unique_ptr<Device> device = make_cpu_device();
    const std::unique_ptr<Device> plan = make_plan_device();
    const std::unique_ptr<Problem> problem = make_problem(*device, measured.mixer, size, precision);
    const std::unique_ptr<Problem> planned = make_problem(*plan, measured.mixer, size, precision);
    double forward = 0;
    for (const bool is_forward : {true, false}) {
      const auto call = [is_forward](Problem& which) {
        is_forward ? which.forward() : which.backward();
      };
      plan->profile().reset();
      call(*planned);
      const Work work = plan->profile().total_work();
      const Times times = measure(world_, repeats_, [&] { call(*problem); });
      if (is_forward) forward = times.median;
      const double rate = world_.size() * work.flops / times.median;
      const double by_bytes = work.flops / work.bytes * ceilings.copies;
      const double ceiling = std::min(ceilings.products, by_bytes);
      std::vector<Value> row{std::string(precision_name(precision)), measured.name, length,
                             std::string(is_forward ? "forward" : "backward")};
      append(row, times);
      row.insert(row.end(),
                 {work.flops, work.flops / work.bytes, rate, ceilings.products, by_bytes,
                  rate / ceiling, over_full(measured.mixer, size, is_forward, times.median)});
      report_.row(row);
    }
    return forward;
  }

  // How many times as long as its pairs take full attention, measured before; none of recurrences.
  Value over_full(const MixerConfig& mixer, const Size& size, bool is_forward, double seconds) {
    if (!mixer.is_attention()) return {};
    const double of_pair = seconds / seen_pairs(mixer.key_pattern(0), size.length, size.num_heads);
    if (mixer.kind == MixerKind::full) seconds_of_pair_[is_forward] = of_pair;
    const auto full = seconds_of_pair_.find(is_forward);
    return full == seconds_of_pair_.end() ? Value() : Value(of_pair / full->second);
  }

  void tell(DType precision, const std::string& kind, std::optional<double> length) {
    const std::string name = fmt::format("{} {}", precision_name(precision), kind);
    report_.line(length
                     ? fmt::format("{}: quicker than full attention, forward, from {:.0f} "
                                   "tokens on",
                                   name, *length)
                     : fmt::format("{}: slower than full attention at the longest length", name));
    report_.fact(fmt::format("{}_{}_crossover", precision_name(precision), kind),
                 length ? Value(*length) : Value());
  }

  Group& world_;
  const MixerOptions& options_;
  Repeats repeats_;
  Report& report_;
  std::map<bool, double> seconds_of_pair_;  // of full attention at this length, by is_forward
};

}  // namespace

void run_mixer(Group& world, const MixerOptions& options, const Repeats& repeats,
               const Output& output) {
  Report report(world, output, "mixer");
  report.note(
      fmt::format("one sequence, {} heads of {}, chunks of {}; the mixer's kernels alone, "
                  "without projections;",
                  options.num_heads, options.head_dim, options.chunk));
  report.note(
      "window 512; blocks: bigbird of 64, fixed and strided of 128; segment and memory 256; "
      "hierarchical: blocks of 64, one in the window and 4 chosen; lsh: 64 buckets, their last 64 "
      "tokens; FLOPs are those of the pairs "
      "that are seen;");
  report.note(
      "bounds in GFLOP/s: by products, and by bytes (FLOPs over bytes, operands once, times the "
      "ceiling of copies); the ceiling is the lower one; x full: times as long as its pairs take "
      "full attention");
  const std::unique_ptr<Device> device = make_cpu_device();
  const double copies = measure_copies(world, *device);
  report.ceiling("copies", copies, "B/s");
  std::vector<Ceilings> ceilings;
  for (const DType precision : options.precisions) {
    ceilings.push_back({measure_products(world, *device, precision), copies});
    report.ceiling(std::string(precision_name(precision)) + " products", ceilings.back().products,
                   "FLOP/s");
  }
  std::vector<Column> columns{{"type", "precision", -6},
                              {"kind", "kind", -12},
                              {"length", "length", 8},
                              {"operation", "operation", -9}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(
      columns.end(),
      {{.heading = "GFLOP", .key = "flops", .width = 9, .scale = 1e-9, .num_decimals = 3},
       {.heading = "FLOP/B", .key = "flops_per_byte", .width = 8},
       rate_column(),
       {.heading = "products", .key = "bound_by_products", .scale = 1e-9},
       {.heading = "bytes", .key = "bound_by_bytes", .scale = 1e-9},
       share_column(),
       {.heading = "x full", .key = "times_full_attention", .width = 7, .num_decimals = 2}});
  report.columns(columns);
  Benchmark benchmark(world, options, repeats, report);
  for (std::size_t i = 0; i < options.precisions.size(); ++i)
    benchmark.run(options.precisions[i], ceilings[i]);
  report.finish();
}

}  // namespace switchyard::bench
