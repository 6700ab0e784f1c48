#include "bench/attention.hpp"

#include <cmath>

#include "kernels/attention/attention.hpp"

namespace switchyard::bench {

namespace {

kernels::AttentionShape shape_of(const AttentionSize& size) {
  kernels::AttentionShape shape;
  shape.num_sequences = size.num_sequences;
  shape.query_length = size.length;
  shape.key_length = size.length;
  shape.num_heads = size.num_heads;
  shape.num_kv_heads = size.num_kv_heads;
  shape.head_dim = size.head_dim;
  shape.scale = 1.0f / std::sqrt(static_cast<float>(size.head_dim));
  return shape;
}

kernels::CausalMask mask_of(const AttentionSize& size) {
  return {
      .num_sequences = size.num_sequences, .query_length = size.length, .key_length = size.length};
}

// The operands of one size, on the processor or, to count the work, on the plan device.
class Problem {
 public:
  Problem(Device& device, const AttentionSize& size, DType precision)
      : shape_(shape_of(size)),
        first_(device, Purpose::workspace, DType::i32, {size.num_sequences * size.length}),
        end_(device, Purpose::workspace, DType::i32, {size.num_sequences * size.length}),
        ranges_(kernels::causal_ranges(mask_of(size), first_, end_)),
        lse_(device, Purpose::activation, DType::f32,
             {size.num_sequences * size.length, size.num_heads}),
        delta_(device, Purpose::activation, DType::f32, lse_->shape),
        workspace_(device, Purpose::workspace, DType::u8,
                   {kernels::attention_workspace_bytes(shape_, precision, device.target())}) {
    const std::int64_t num_tokens = size.num_sequences * size.length;
    for (Tensor* each : {&q_, &out_, &dout_, &dq_})
      *each = Tensor(device, Purpose::activation, precision,
                     {num_tokens, size.num_heads * size.head_dim});
    for (Tensor* each : {&k_, &v_, &dk_, &dv_})
      *each = Tensor(device, Purpose::activation, precision,
                     {num_tokens, size.num_kv_heads * size.head_dim});
    std::uint32_t stream = 0;
    for (const Tensor* each : {&q_, &k_, &v_, &dout_}) fill_random(*each, stream++);
    forward();  // the backward pass reads its results
  }

  void forward() {
    kernels::attention_forward(shape_, q_, k_, v_, ranges_, out_, lse_, kernels::Merge::replace,
                               workspace_);
  }
  void backward() {
    kernels::attention_delta(out_, dout_, shape_.head_dim, delta_);
    kernels::attention_backward(shape_, q_, k_, v_, ranges_, lse_, delta_, dout_, {dq_, dk_, dv_},
                                workspace_);
  }

 private:
  kernels::AttentionShape shape_;
  Tensor first_, end_;
  kernels::KeyRanges ranges_;
  Tensor lse_;
  Tensor delta_;
  Tensor workspace_;
  Tensor q_, k_, v_, out_, dout_, dq_, dk_, dv_;
};

struct Operation {
  const char* name;
  void (Problem::*run)();
};
constexpr Operation operations[] = {{"forward", &Problem::forward},
                                    {"backward", &Problem::backward}};

void measure_size(Group& world, const AttentionSize& size, DType precision, double ceiling,
                  const Repeats& repeats, Report& report) {
  const std::unique_ptr<Device> device = make_cpu_device();
  const std::unique_ptr<Device> plan = make_plan_device();
  Problem problem(*device, size, precision);
  Problem planned(*plan, size, precision);
  for (const Operation& operation : operations) {
    plan->profile().reset();
    (planned.*operation.run)();
    const double flops = plan->profile().total_work().flops;
    const Times times = measure(world, repeats, [&] { (problem.*operation.run)(); });
    const double rate = world.size() * flops / times.median;
    std::vector<Value> row{std::string(precision_name(precision)),
                           size.num_sequences,
                           size.length,
                           size.num_heads,
                           size.num_kv_heads,
                           size.head_dim,
                           std::string(operation.name)};
    append(row, times);
    row.insert(row.end(), {flops, rate, rate / ceiling});
    report.row(row);
  }
}

}  // namespace

void run_attention(Group& world, const AttentionOptions& options, const Repeats& repeats,
                   const Output& output) {
  Report report(world, output, "attention");
  report.note(
      "causal; a pair of a query and a key that it sees counts 4 head_dim FLOPs forward and 8 "
      "backward;");
  report.note("pairs behind the mask and what the backward pass computes again do not count");
  const std::unique_ptr<Device> device = make_cpu_device();
  std::vector<double> ceilings;
  for (const DType precision : options.precisions) {
    ceilings.push_back(measure_products(world, *device, precision));
    report.ceiling(std::string(precision_name(precision)) + " products", ceilings.back(), "FLOP/s");
  }
  std::vector<Column> columns{{"type", "precision", -6},     {"sequences", "num_sequences", 9},
                              {"length", "length", 8},       {"heads", "num_heads", 7},
                              {"kv", "num_kv_heads", 5},     {"head_dim", "head_dim", 10},
                              {"operation", "operation", -9}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(columns.end(), {{.heading = "GFLOP", .key = "flops", .width = 8, .scale = 1e-9},
                                 rate_column(),
                                 share_column()});
  report.columns(columns);
  for (std::size_t i = 0; i < options.precisions.size(); ++i)
    for (const AttentionSize& size : options.sizes)
      measure_size(world, size, options.precisions[i], ceilings[i], repeats, report);
  report.finish();
}

}  // namespace switchyard::bench
