#include "trainer/checkpoint/inspect.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <limits>
#include <span>

#include "data/files/checksum.hpp"
#include "trainer/checkpoint/reader.hpp"
#include "trainer/number_text.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t block_numel = 4 << 20;  // elements read at a time

// Calls visit(begin, values) for blocks that together are the whole tensor.
template <class Visit>
void for_blocks(const SavedTensor& tensor, const Visit& visit) {
  const std::int64_t numel = tensor.shape.numel();
  for (std::int64_t begin = 0; begin < numel; begin += block_numel)
    visit(begin, std::min(block_numel, numel - begin));
}

// Numbers and texts with their lengths, so that no two states are the same bytes.
void add_number(Checksum& checksum, std::int64_t number) {
  checksum.add(std::as_bytes(std::span(&number, 1)));
}
void add_text(Checksum& checksum, std::string_view text) {
  add_number(checksum, std::ssize(text));
  checksum.add(std::as_bytes(std::span(text)));
}

void add_tensor(Checksum& checksum, CheckpointReader& reader, const SavedTensor& tensor) {
  add_text(checksum, tensor.name);
  add_text(checksum, name_of(tensor.kind));
  add_text(checksum, tensor.shape.to_string());
  std::vector<float> block;
  for (const SavedPart part : saved_parts_of(tensor.kind, reader.manifest().has_moments))
    for_blocks(tensor, [&](std::int64_t begin, std::int64_t count) {
      block.resize(static_cast<std::size_t>(count));
      reader.read(part, tensor, begin, block);
      checksum.add(std::as_bytes(std::span(block)));
    });
}

double norm_of(CheckpointReader& reader, SavedPart part, const SavedTensor& tensor) {
  double sum = 0;
  std::vector<float> block;
  for_blocks(tensor, [&](std::int64_t begin, std::int64_t count) {
    block.resize(static_cast<std::size_t>(count));
    reader.read(part, tensor, begin, block);
    for (const float value : block) sum += double{value} * double{value};
  });
  return std::sqrt(sum);
}

struct Difference {
  double absolute = 0;
  double relative = 0;  // of elements, to the larger magnitude
  std::int64_t num_different = 0;
};

void compare(const std::vector<float>& a, const std::vector<float>& b, Difference& difference) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i])) continue;
    ++difference.num_different;
    const double gap = std::abs(double{a[i]} - double{b[i]});
    const double size = std::max(std::abs(double{a[i]}), std::abs(double{b[i]}));
    // A NaN on one side is as far off as can be.
    const double infinite = std::numeric_limits<double>::infinity();
    difference.absolute = std::max(difference.absolute, std::isnan(gap) ? infinite : gap);
    const double relative = std::isnan(gap) ? infinite : size > 0 ? gap / size : 0.0;
    difference.relative = std::max(difference.relative, relative);
  }
}

Difference difference_of(CheckpointReader& a, CheckpointReader& b, SavedPart part,
                         const SavedTensor& of_a, const SavedTensor& of_b) {
  Difference difference;
  std::vector<float> block_a;
  std::vector<float> block_b;
  for_blocks(of_a, [&](std::int64_t begin, std::int64_t count) {
    block_a.resize(static_cast<std::size_t>(count));
    block_b.resize(static_cast<std::size_t>(count));
    a.read(part, of_a, begin, block_a);
    b.read(part, of_b, begin, block_b);
    compare(block_a, block_b, difference);
  });
  return difference;
}

std::size_t longest_name(const Manifest& manifest) {
  std::size_t longest = 6;
  for (const SavedTensor& tensor : manifest.tensors)
    longest = std::max(longest, tensor.name.size());
  return longest;
}

std::string indented(const std::string& text) {
  std::string result;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    result += "  " + text.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  return result;
}

// max_rows is left out: it tells of the layout, not of the training.
bool diff_states(const TrainState& a, const TrainState& b, std::ostream& out) {
  const auto line = [&](std::string_view key, std::int64_t x, std::int64_t y) {
    if (x != y) out << fmt::format("{}: {} and {}\n", key, x, y);
  };
  line("step", a.step, b.step);
  line("num_tokens", a.num_tokens, b.num_tokens);
  line("data_position", a.data_position, b.data_position);
  line("earlier_updates", a.earlier_updates, b.earlier_updates);
  return a.step == b.step && a.num_tokens == b.num_tokens && a.data_position == b.data_position &&
         a.earlier_updates == b.earlier_updates;
}

// The same tensor in both, part by part. True if equal.
bool diff_tensors(CheckpointReader& a, CheckpointReader& b, const SavedTensor& of_a,
                  const SavedTensor& of_b, std::ostream& out) {
  bool equal = true;
  const bool have_moments = a.manifest().has_moments && b.manifest().has_moments;
  for (const SavedPart part : saved_parts_of(of_a.kind, have_moments)) {
    const Difference difference = difference_of(a, b, part, of_a, of_b);
    if (difference.num_different == 0) continue;
    equal = false;
    out << fmt::format("{}/{}: {} of {} elements differ, by at most {:.3g} ({:.3g} relative)\n",
                       group_name_of(part), of_a.name, difference.num_different, of_a.shape.numel(),
                       difference.absolute, difference.relative);
  }
  return equal;
}

}  // namespace

void show_checkpoint(const std::string& path, std::ostream& out) {
  CheckpointReader reader(resolve_checkpoint(path));
  const Manifest& manifest = reader.manifest();
  out << fmt::format("{}\n", reader.folder());
  out << fmt::format("step {}, {} tokens, {} sequences consumed\n", manifest.state.step,
                     manifest.state.num_tokens, manifest.state.data_position);
  out << fmt::format("written by {} ranks: data {} x context {}, expert {}\n", manifest.num_ranks,
                     manifest.layout.data, manifest.layout.context, manifest.layout.expert);
  if (manifest.corpus != CorpusRecord{})
    out << fmt::format("trained on {} (checksums: train {}, valid {}, tokenizer {})\n",
                       manifest.corpus.path, manifest.corpus.train, manifest.corpus.valid,
                       manifest.corpus.tokenizer);
  for (const MixedCorpus& part : manifest.corpus.mixture)
    out << fmt::format("of the mixture: {} (checksum: train {})\n", part.path, part.train);
  for (const Ancestor& from : manifest.lineage)
    out << fmt::format("began with {} of {} (step {}, {} tokens{})\n", from.taken, from.path,
                       from.step, from.num_tokens,
                       from.course.empty() ? "" : ", course " + from.course);
  if (manifest.state.earlier_updates > 0)
    out << fmt::format("its moments had {} updates before step 1\n",
                       manifest.state.earlier_updates);
  if (!manifest.has_moments) out << "weights alone: no moments of the optimizer\n";
  if (manifest.arithmetic != ArithmeticRecord{})
    out << fmt::format("exact: instruction set {}, build {}\n", manifest.arithmetic.isa,
                       manifest.arithmetic.build);
  out << fmt::format("{} files, {}; {} tensors, {} elements trained, {} elements of state\n\n",
                     manifest.files.size(), format_bytes(static_cast<double>(manifest.num_bytes())),
                     manifest.tensors.size(), manifest.num_elements(ParameterKind::trained),
                     manifest.num_elements(ParameterKind::state));
  const std::size_t width = longest_name(manifest);
  out << fmt::format("{:<{}}  {:>20}  {:>7}  {:>10}  {:>11}  {:>11}  {:>11}\n", "tensor", width,
                     "shape", "kind", "bytes", "norm", "moment1", "moment2");
  for (const SavedTensor& tensor : manifest.tensors) {
    const double bytes = static_cast<double>(tensor.shape.numel()) * sizeof(float);
    out << fmt::format("{:<{}}  {:>20}  {:>7}  {:>10}", tensor.name, width,
                       tensor.shape.to_string(), name_of(tensor.kind), format_bytes(bytes));
    for (const SavedPart part : saved_parts_of(tensor.kind, manifest.has_moments))
      out << fmt::format("  {:>11.5g}", norm_of(reader, part, tensor));
    out << '\n';
  }
  out << "\nconfiguration:\n" << indented(manifest.configuration);
}

std::string digest_of_checkpoint(const std::string& path) {
  CheckpointReader reader(resolve_checkpoint(path));
  const TrainState& state = reader.manifest().state;
  Checksum checksum;
  for (const std::int64_t number : {state.step, state.num_tokens, state.data_position})
    add_number(checksum, number);
  if (state.earlier_updates > 0) add_number(checksum, state.earlier_updates);
  std::vector<const SavedTensor*> tensors;
  for (const SavedTensor& tensor : reader.manifest().tensors) tensors.push_back(&tensor);
  std::ranges::sort(tensors, {}, &SavedTensor::name);
  for (const SavedTensor* tensor : tensors) add_tensor(checksum, reader, *tensor);
  return checksum_text(checksum.value());
}

void verify_checkpoint(const std::string& path, Group& world, std::ostream& out) {
  const std::string folder = resolve_checkpoint(path);
  const std::string damage =
      find_damage(folder, world, [&](const std::string& line) { out << line << '\n'; });
  if (!damage.empty()) throw CheckpointError(damage);
  const Manifest manifest = read_manifest(folder);
  out << fmt::format("{}: sound ({} files, {})\n", folder, manifest.files.size(),
                     format_bytes(static_cast<double>(manifest.num_bytes())));
}

bool diff_checkpoints(const std::string& first, const std::string& second, std::ostream& out) {
  CheckpointReader a(resolve_checkpoint(first));
  CheckpointReader b(resolve_checkpoint(second));
  bool equal = diff_states(a.manifest().state, b.manifest().state, out);
  if (a.manifest().has_moments != b.manifest().has_moments) {
    out << fmt::format("moments: only in {}\n", (a.manifest().has_moments ? a : b).folder());
    equal = false;
  }
  for (const SavedTensor& of_a : a.manifest().tensors) {
    const SavedTensor* of_b = b.manifest().find(of_a.name);
    if (of_b == nullptr) {
      out << fmt::format("{}: only in {}\n", of_a.name, a.folder());
      equal = false;
    } else if (of_a.shape != of_b->shape) {
      out << fmt::format("{}: shapes {} and {}\n", of_a.name, of_a.shape.to_string(),
                         of_b->shape.to_string());
      equal = false;
    } else if (of_a.kind != of_b->kind) {
      out << fmt::format("{}: {} and {}\n", of_a.name, name_of(of_a.kind), name_of(of_b->kind));
      equal = false;
    } else {
      equal = diff_tensors(a, b, of_a, *of_b, out) && equal;
    }
  }
  for (const SavedTensor& of_b : b.manifest().tensors)
    if (a.manifest().find(of_b.name) == nullptr) {
      out << fmt::format("{}: only in {}\n", of_b.name, b.folder());
      equal = false;
    }
  if (equal) out << "equal, bit for bit\n";
  return equal;
}

}  // namespace switchyard
