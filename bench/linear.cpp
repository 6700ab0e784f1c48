#include "bench/linear.hpp"

#include "kernels/products/linear.hpp"

namespace switchyard::bench {

namespace {

// The operands of one size, on the processor or, to count the work, on the plan device.
class Problem {
 public:
  Problem(Device& device, const LinearSize& size, DType precision)
      : weight_(device, Purpose::parameter, DType::f32, {size.out_features, size.in_features}),
        weight_gradient_(device, Purpose::gradient, DType::f32,
                         {size.out_features, size.in_features}),
        packed_(device, size.out_features, size.in_features, precision),
        x_(device, Purpose::activation, precision, {size.num_rows, size.in_features}),
        y_(device, Purpose::activation, precision, {size.num_rows, size.out_features}),
        dy_(device, Purpose::activation, precision, {size.num_rows, size.out_features}),
        dx_(device, Purpose::activation, precision, {size.num_rows, size.in_features}) {
    fill_random(weight_, 0);
    fill_random(x_, 1);
    fill_random(dy_, 2);
    packed_.pack(weight_);
  }

  void forward() { kernels::linear_forward(x_, packed_, y_); }
  void backward_input() { kernels::linear_backward_input(dy_, packed_, dx_); }
  void backward_weight() { kernels::linear_backward_weight(dy_, x_, weight_gradient_); }
  void pack() { packed_.pack(weight_); }

 private:
  Tensor weight_;
  Tensor weight_gradient_;
  kernels::PackedWeight packed_;
  Tensor x_, y_, dy_, dx_;
};

struct Operation {
  const char* name;
  void (Problem::*run)();
};
constexpr Operation operations[] = {{"forward", &Problem::forward},
                                    {"backward_input", &Problem::backward_input},
                                    {"backward_weight", &Problem::backward_weight},
                                    {"pack", &Problem::pack}};

struct Ceilings {
  double products = 0;
  double copies = 0;
};

void measure_size(Group& world, const LinearSize& size, DType precision, const Ceilings& ceilings,
                  const Repeats& repeats, Report& report) {
  const std::unique_ptr<Device> device = make_cpu_device();
  const std::unique_ptr<Device> plan = make_plan_device();
  Problem problem(*device, size, precision);
  Problem planned(*plan, size, precision);
  for (const Operation& operation : operations) {
    plan->profile().reset();
    (planned.*operation.run)();
    const Work work = plan->profile().total_work();
    const Times times = measure(world, repeats, [&] { (problem.*operation.run)(); });
    const bool is_product = work.flops > 0;
    const double flops_rate = world.size() * work.flops / times.median;
    const double bytes_rate = world.size() * work.bytes / times.median;
    std::vector<Value> row{std::string(precision_name(precision)),
                           is_product ? Value(size.num_rows) : Value(), size.out_features,
                           size.in_features, std::string(operation.name)};
    append(row, times);
    row.insert(row.end(),
               {is_product ? Value(flops_rate) : Value(), bytes_rate,
                is_product ? flops_rate / ceilings.products : bytes_rate / ceilings.copies});
    report.row(row);
  }
}

}  // namespace

void run_linear(Group& world, const LinearOptions& options, const Repeats& repeats,
                const Output& output) {
  Report report(world, output, "linear");
  report.note("y = x W^T, W [out, in], by oneDNN; sums and weight gradients in fp32");
  const std::unique_ptr<Device> device = make_cpu_device();
  std::vector<Ceilings> ceilings;
  const double copies = measure_copies(world, *device);
  for (const DType precision : options.precisions) {
    ceilings.push_back({measure_products(world, *device, precision), copies});
    report.ceiling(std::string(precision_name(precision)) + " products", ceilings.back().products,
                   "FLOP/s");
  }
  report.ceiling("memory copies", copies, "B/s");
  report.note("GB/s: each operand counted once; the ceiling of pack is that of memory copies");
  std::vector<Column> columns{{"type", "precision", -6},
                              {"rows", "num_rows", 7},
                              {"out", "out_features", 7},
                              {"in", "in_features", 7},
                              {"operation", "operation", -16}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(columns.end(),
                 {rate_column(),
                  {.heading = "GB/s", .key = "bytes_per_second", .width = 8, .scale = 1e-9},
                  share_column()});
  report.columns(columns);
  for (std::size_t i = 0; i < options.precisions.size(); ++i)
    for (const LinearSize& size : options.sizes)
      measure_size(world, size, options.precisions[i], ceilings[i], repeats, report);
  report.finish();
}

}  // namespace switchyard::bench
