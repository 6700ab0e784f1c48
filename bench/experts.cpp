#include "bench/experts.hpp"

#include <algorithm>
#include <numeric>

#include "experts/expert_bank.hpp"
#include "kernels/host_copy.hpp"

namespace switchyard::bench {

namespace {

BankSpec spec_of(const ExpertsSize& size, DType precision) {
  BankSpec spec;
  spec.prefix = "experts";
  spec.hidden = size.hidden;
  spec.intermediate = size.intermediate;
  spec.compute = precision;
  spec.num_experts = size.num_experts;
  spec.local_experts.resize(static_cast<std::size_t>(size.num_experts));
  std::iota(spec.local_experts.begin(), spec.local_experts.end(), 0);
  spec.replicas = Axis::expert_data;
  return spec;
}

// The bank and the rows of one size, on the processor or, to count the work, on the plan device.
class Problem {
 public:
  Problem(Device& device, const Mesh& mesh, const ExpertsSize& size, DType precision)
      : store_(device, mesh),
        bank_(store_, spec_of(size, precision)),
        scratch_(device, size.num_rows, size.num_experts, size.intermediate, precision),
        offsets_(device, Purpose::workspace, DType::i32, {size.num_experts + 1}),
        gate_up_(device, Purpose::activation, precision, {size.num_rows, 2 * size.intermediate}) {
    for (Tensor* each : {&x_, &y_, &dy_, &dx_})
      *each = Tensor(device, Purpose::activation, precision, {size.num_rows, size.hidden});
    store_.allocate();
    store_.initialize(1);
    bank_.pack_weights();
    fill_random(x_, 0);
    fill_random(dy_, 1);
  }

  void use(std::span<const std::int64_t> offsets) {
    kernels::write_from_host<std::int32_t>(offsets_, [&](std::span<std::int32_t> written) {
      std::ranges::transform(offsets, written.begin(),
                             [](std::int64_t row) { return static_cast<std::int32_t>(row); });
    });
    forward();  // the backward pass reads its results
  }
  void forward() { bank_.forward(x_, offsets_, gate_up_, y_, scratch_, pass_); }
  void backward() {
    bank_.backward(dy_, x_, offsets_, TensorView{}, gate_up_, dx_, scratch_, pass_);
  }

 private:
  ParameterStore store_;
  ExpertBank bank_;
  BankScratch scratch_;
  Tensor offsets_;
  Tensor gate_up_;
  Tensor x_, y_, dy_, dx_;
  Pass pass_;
};

struct Operation {
  const char* name;
  void (Problem::*run)();
  bool is_backward;
};
constexpr Operation operations[] = {{"forward", &Problem::forward, false},
                                    {"backward", &Problem::backward, true}};

std::int64_t largest_load(const std::vector<std::int64_t>& offsets) {
  std::int64_t largest = 0;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
    largest = std::max(largest, offsets[e + 1] - offsets[e]);
  return largest;
}

// Of all ranks: products, and bytes copied, a second.
struct Ceilings {
  double products;
  double copies;
};

void measure_size(Group& world, const ExpertsSize& size, DType precision, const Ceilings& ceilings,
                  const Repeats& repeats, Report& report) {
  const std::unique_ptr<Device> device = make_cpu_device();
  const std::unique_ptr<Device> plan = make_plan_device();
  const std::unique_ptr<Group> alone = make_local_group("world");
  const Mesh mesh(*alone, {.data = 1});
  const Mesh plan_mesh(*plan, 0, 1, {.data = 1});
  Problem problem(*device, mesh, size, precision);
  Problem planned(*plan, plan_mesh, size, precision);
  for (const Load load : {Load::balanced, Load::skewed}) {
    const std::vector<std::int64_t> offsets = expert_offsets(size.num_experts, size.num_rows, load);
    problem.use(offsets);
    planned.use(offsets);
    for (const Operation& operation : operations) {
      plan->profile().reset();
      (planned.*operation.run)();
      const double flops = plan->profile().total_work().flops;
      const Times times = measure(world, repeats, [&] { (problem.*operation.run)(); });
      const double rate = world.size() * flops / times.median;
      const double bytes = least_bytes(size, precision, operation.is_backward);
      const double bound = std::min(ceilings.products, flops / bytes * ceilings.copies);
      std::vector<Value> row{std::string(precision_name(precision)),
                             size.num_experts,
                             size.num_rows,
                             size.hidden,
                             size.intermediate,
                             std::string(load == Load::balanced ? "balanced" : "skewed"),
                             largest_load(offsets),
                             std::string(operation.name)};
      append(row, times);
      row.insert(row.end(), {world.size() * static_cast<double>(size.num_rows) / times.median, rate,
                             rate / ceilings.products, bound, rate / bound});
      report.row(row);
    }
  }
}

}  // namespace

std::vector<std::int64_t> expert_offsets(std::int64_t num_experts, std::int64_t num_rows,
                                         Load load) {
  double total = 0;
  std::vector<double> weights;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    weights.push_back(load == Load::balanced ? 1.0 : 1.0 / static_cast<double>(e + 1));
    total += weights.back();
  }
  std::vector<std::int64_t> offsets{0};
  double sum = 0;
  for (const double weight : weights) {
    sum += weight;
    offsets.push_back(static_cast<std::int64_t>(static_cast<double>(num_rows) * sum / total));
  }
  offsets.back() = num_rows;
  return offsets;
}

double least_bytes(const ExpertsSize& size, DType precision, bool backward) {
  const double element = static_cast<double>(size_of(precision));
  const auto rows = static_cast<double>(size.num_rows), hidden = static_cast<double>(size.hidden),
             inner = static_cast<double>(size.intermediate);
  const double weights = static_cast<double>(size.num_experts) * 3 * inner * hidden;
  const double moved = rows * ((backward ? 3 : 2) * hidden + 2 * inner) * element;
  const double gradients = backward ? 2.0 * 4 * weights : 0;
  return moved + weights * element + gradients;
}

void run_experts(Group& world, const ExpertsOptions& options, const Repeats& repeats,
                 const Output& output) {
  Report report(world, output, "experts");
  report.note(
      "SwiGLU: 6 hidden intermediate FLOPs a row forward, 12 backward with weight gradients");
  report.note("skewed: expert e gets rows as 1 / (e + 1); fullest: rows of the fullest expert");
  const std::unique_ptr<Device> device = make_cpu_device();
  report.note(
      "bound: the smaller of the product ceiling and operations over the least bytes at the "
      "copying "
      "rate");
  const double copies = measure_copies(world, *device);
  report.ceiling("copies", copies, "B/s");
  std::vector<Ceilings> ceilings;
  for (const DType precision : options.precisions) {
    ceilings.push_back({measure_products(world, *device, precision), copies});
    report.ceiling(std::string(precision_name(precision)) + " products", ceilings.back().products,
                   "FLOP/s");
  }
  std::vector<Column> columns{
      {"type", "precision", -6},      {"experts", "num_experts", 7},        {"rows", "num_rows", 8},
      {"hidden", "hidden", 8},        {"intermediate", "intermediate", 14}, {"load", "load", -9},
      {"fullest", "fullest_rows", 8}, {"operation", "operation", -9}};
  for (const Column& column : time_columns("ms")) columns.push_back(column);
  columns.insert(
      columns.end(),
      {{.heading = "rows/s", .key = "rows_per_second", .width = 10, .num_decimals = 0},
       rate_column(),
       share_column(),
       {.heading = "bound GFLOP/s", .key = "bound_flops_per_second", .width = 13, .scale = 1e-9},
       {.heading = "% of bound", .key = "bound_share", .scale = 100}});
  report.columns(columns);
  for (std::size_t i = 0; i < options.precisions.size(); ++i)
    for (const ExpertsSize& size : options.sizes)
      measure_size(world, size, options.precisions[i], ceilings[i], repeats, report);
  report.finish();
}

}  // namespace switchyard::bench
