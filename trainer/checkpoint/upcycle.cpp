#include "trainer/checkpoint/upcycle.hpp"

#include <fmt/core.h>

#include <cmath>
#include <filesystem>

#include "kernels/host_copy.hpp"
#include "model/transformer.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/checkpoint/reader.hpp"
#include "trainer/placement/layer_placements.hpp"

namespace switchyard {
namespace {

// How experts are cut from a feed-forward.
struct Cut {
  std::int64_t dense_width = 0;  // D
  std::int64_t width = 0;        // I
  std::int64_t num_parts = 1;    // g
  double down_factor = 1;
};

// "layers.3.experts.down.weight" with ".experts" for ".feed_forward".
std::string dense_name_of(std::string_view name, std::string_view part) {
  return std::string(name.substr(0, name.find(part))) + ".feed_forward" +
         std::string(name.substr(name.find(part) + part.size()));
}

bool has_part(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

constexpr std::string_view of_experts = ".experts";
constexpr std::string_view of_router = ".router.weight";

// Of experts and routers, none of which a dense layer has.
bool is_new_bias(std::string_view name) {
  return has_part(name, ".router.bias") || has_part(name, ".router.logit_bias") ||
         (has_part(name, of_experts) && name.ends_with(".bias"));
}

// The first feed-forward that becomes experts decides for all; each is checked when it is read.
std::int64_t dense_width_of(const Manifest& manifest, const Config& config) {
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    if (!config.experts.layer_has_experts(layer)) continue;
    const std::string name = fmt::format("layers.{}.feed_forward.down.weight", layer);
    if (const SavedTensor* tensor = manifest.find(name)) return tensor->shape[1];
    throw CheckpointError(fmt::format(
        "the checkpoint has no tensor {}, of which experts could be made: layer {} is no dense "
        "layer there, or is none; compare model.num_layers, experts.every and experts.first_dense",
        name, layer));
  }
  throw ConfigError("the configuration has no layer with experts: set experts.num_experts");
}

void require_divisor(std::int64_t whole, std::int64_t part, const std::string& equation) {
  if (part > 0 && whole % part == 0) return;
  throw ConfigError(fmt::format("{} = {} / {} is not whole", equation, whole, part));
}

Cut cut_of(const Manifest& manifest, const Config& config) {
  const ExpertsConfig& experts = config.experts;
  Cut cut;
  cut.dense_width = dense_width_of(manifest, config);
  cut.width = experts.intermediate;
  require_divisor(cut.dense_width, cut.width,
                  "parts of a feed-forward: its width in the dense model / experts.intermediate");
  cut.num_parts = cut.dense_width / cut.width;
  require_divisor(experts.num_experts, cut.num_parts,
                  "copies of a feed-forward: experts.num_experts / its parts");
  require_divisor(experts.top_k, cut.num_parts,
                  "copies that a token chooses: experts.top_k / the parts of a feed-forward");
  if (experts.router.kind != RouterKind::top_k || experts.router.top_groups < experts.router.groups)
    throw ConfigError(
        "upcycling takes experts.router.kind top_k without limited groups; other routers do not "
        "choose whole copies of a feed-forward");
  if (experts.activation != ExpertActivation::swiglu)
    throw ConfigError(
        fmt::format("the dense layers have experts.activation {}, and the experts made of them "
                    "would have {}; leave it out",
                    name_of(ExpertActivation::swiglu), name_of(experts.activation)));
  // What a chosen expert weighs before the router has learnt.
  const double score = experts.router.score == RouterScore::softmax
                           ? 1 / static_cast<double>(experts.num_experts)
                           : 0.5;
  const double weight =
      experts.router.scale *
      (experts.weights_are_shares() ? 1 / static_cast<double>(experts.top_k) : score);
  const double num_copies = static_cast<double>(experts.top_k / cut.num_parts);
  cut.down_factor = 1 / (weight * num_copies);
  return cut;
}

void add_noise(std::span<float> values, double noise, RandomKey key) {
  double squares = 0;
  for (const float value : values) squares += double{value} * double{value};
  const auto std = static_cast<float>(
      noise * std::sqrt(squares / static_cast<double>(std::max<std::size_t>(values.size(), 1))));
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const std::array<float, 4> normal = normals(random_words(key, i / 4, 0));
    for (std::size_t j = 0; j < 4 && i + j < values.size(); ++j) values[i + j] += std * normal[j];
  }
}

class Upcycler {
 public:
  Upcycler(CheckpointReader& reader, const Config& config, const UpcycleOptions& options)
      : reader_(reader),
        config_(config),
        options_(options),
        cut_(cut_of(reader.manifest(), config)) {}

  const Cut& cut() const { return cut_; }

  // The values of a parameter, which has its initial ones.
  void fill(const Parameter& parameter) {
    kernels::write_from_host<float>(parameter.value(), [&](std::span<float> values) {
      fill(parameter.name(), parameter.spec().global_shape, values);
    });
  }

 private:
  void fill(const std::string& name, const Shape& shape, std::span<float> values) {
    if (is_new_bias(name)) return;  // zeros
    if (has_part(name, ".shared_experts.")) {
      if (has_part(name, ".down.")) std::ranges::fill(values, 0.0f);
    } else if (has_part(name, of_experts)) {
      fill_experts(name, shape, values);
    } else if (has_part(name, of_router)) {
      fill_router(values);
    } else {
      reader_.read(SavedPart::value, dense_tensor(name, shape), 0, values);
    }
  }

  const SavedTensor& dense_tensor(const std::string& name, const Shape& shape) const {
    const SavedTensor* tensor = reader_.manifest().find(name);
    if (tensor == nullptr || tensor->shape != shape)
      throw CheckpointError(fmt::format(
          "{}: the model needs a tensor {} {}; the checkpoint {}; compare section model with the "
          "configuration that `switchyard checkpoint show` prints",
          reader_.folder(), name, shape.to_string(),
          tensor == nullptr ? "has none" : "has one " + tensor->shape.to_string()));
    return *tensor;
  }

  // What of the dense tensor is expert e's.
  std::vector<SlicePiece> pieces_of(std::int64_t e, bool is_down, std::int64_t hidden) const {
    const std::int64_t first = e % cut_.num_parts * cut_.width;
    if (is_down)
      return {{.global_begin = first,
               .local_begin = 0,
               .numel = cut_.width,
               .count = hidden,
               .global_stride = cut_.dense_width,
               .local_stride = cut_.width}};
    const std::int64_t numel = cut_.width * hidden;
    return {{.global_begin = first * hidden, .local_begin = 0, .numel = numel},
            {.global_begin = (cut_.dense_width + first) * hidden,
             .local_begin = numel,
             .numel = numel}};
  }

  void fill_experts(const std::string& name, const Shape& shape, std::span<float> values) {
    const bool is_down = has_part(name, ".down.");
    const std::int64_t hidden = is_down ? shape[1] : shape[2];
    const SavedTensor& dense = dense_tensor(
        dense_name_of(name, of_experts),
        is_down ? Shape{hidden, cut_.dense_width} : Shape{2 * cut_.dense_width, hidden});
    const auto numel = static_cast<std::size_t>(shape.inner_numel());
    for (std::int64_t e = 0; e < shape[0]; ++e) {
      const std::span<float> own = values.subspan(static_cast<std::size_t>(e) * numel, numel);
      reader_.read(SavedPart::value, dense, pieces_of(e, is_down, hidden), own);
      if (is_down)
        for (float& value : own) value = static_cast<float>(double{value} * cut_.down_factor);
      if (options_.noise > 0)
        add_noise(own, options_.noise,
                  random_key(static_cast<std::uint64_t>(config_.run.seed),
                             fmt::format("upcycle noise {} {}", name, e)));
    }
  }

  // One row a copy, for all of its parts.
  void fill_router(std::span<float> values) const {
    if (options_.router == UpcycledRouter::zero) {
      std::ranges::fill(values, 0.0f);
      return;
    }
    const auto hidden = static_cast<std::size_t>(config_.model.hidden);
    const auto parts = static_cast<std::size_t>(cut_.num_parts);
    for (std::size_t row = 0; row * hidden < values.size(); ++row)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(row / parts * parts * hidden),
                  hidden, values.begin() + static_cast<std::ptrdiff_t>(row * hidden));
  }

  CheckpointReader& reader_;
  const Config& config_;
  const UpcycleOptions& options_;
  Cut cut_;
};

Config with_vocabulary(Config config, const Manifest& manifest) {
  const SavedTensor* embedding = manifest.find("embedding.weight");
  if (config.model.vocab_size == 0 && embedding != nullptr)
    config.model.vocab_size = embedding->shape[0];
  return config;
}

// The state before the first step, and where the weights are from.
SaveRequest request_of(const CheckpointReader& reader, const std::string& configuration,
                       const std::string& output) {
  const Manifest& dense = reader.manifest();
  SaveRequest request;
  request.folder = output;
  request.configuration = configuration;
  request.corpus = dense.corpus;
  request.lineage = dense.lineage;
  request.lineage.push_back({std::filesystem::absolute(reader.folder()).lexically_normal().string(),
                             dense.course, dense.state.step, dense.state.num_tokens,
                             "weights, upcycled"});
  return request;
}

}  // namespace

Upcycled upcycle(const Config& given, const ConfigText& configuration,
                 const UpcycleOptions& options, const Report& report) {
  if (!checkpoint_steps_in(options.output).empty())
    throw ConfigError(
        fmt::format("{} has checkpoints already; choose another folder", options.output));
  const std::unique_ptr<Group> alone = make_local_group("world");
  Upcycled result;
  read_checkpoint(options.dense, *alone, report, [&](const std::string& path) {
    CheckpointReader reader(path);
    require_same_model(path, changed_keys(configuration.values_of(reader.manifest().configuration),
                                          configuration.values_of(configuration.yaml)));
    const Config config = with_vocabulary(given, reader.manifest());
    Upcycler upcycler(reader, config, options);
    const std::unique_ptr<Device> device = make_cpu_device();
    const Mesh mesh(*alone, {.data = 1, .context = 1, .expert = 1});
    const std::vector<Placement> placements =
        layer_placements(config, placement_of(config.experts, 1));
    ParameterStore store(*device, mesh);
    const Transformer model(store, placements, config.model, config.experts, DType::f32,
                            static_cast<std::uint64_t>(config.run.seed), config.model.vocab_size);
    store.allocate();
    store.initialize(static_cast<std::uint64_t>(config.run.seed));
    for (const Parameter& parameter : store.parameters()) upcycler.fill(parameter);
    result.path =
        save_weights(request_of(reader, configuration.yaml, options.output), store, *alone, report)
            .path;
    result.num_layers = model.num_moe_layers();
    result.num_parts = upcycler.cut().num_parts;
    result.keeps_loss = options.noise == 0 && (config.experts.weights_are_shares() ||
                                               options.router == UpcycledRouter::zero);
  });
  return result;
}

}  // namespace switchyard
