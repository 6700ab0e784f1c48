#include "data/prepare/synthetic.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {

namespace {

// Random numbers of one problem, one after another.
class Draws {
 public:
  Draws(const SyntheticOptions& options, std::uint64_t seed, std::int64_t document)
      : key_(random_key(seed, fmt::format("synthetic {}", name_of(options.task)))),
        document_(static_cast<std::uint64_t>(document)) {}

  // From 0 to n - 1, all alike: words of the incomplete last round are drawn again.
  std::int64_t below(std::int64_t n) {
    const auto size = static_cast<std::uint32_t>(n);
    const std::uint32_t first = (0U - size) % size;  // 2^32 mod n words are too many
    std::uint32_t word = next();
    while (word < first) word = next();
    return word % size;
  }
  std::int64_t from_to(std::int64_t least, std::int64_t most) {
    return least + below(most - least + 1);
  }
  // So many different numbers below n, in random order.
  std::vector<std::int64_t> different(std::int64_t count, std::int64_t n) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    for (std::int64_t i = 0; i < count; ++i)
      std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(from_to(i, n - 1))]);
    all.resize(static_cast<std::size_t>(count));
    return all;
  }

 private:
  std::uint32_t next() {
    if (at_ == words_.size()) {
      words_ = random_words(key_, document_, round_++);
      at_ = 0;
    }
    return words_[at_++];
  }

  RandomKey key_;
  std::uint64_t document_;
  std::uint64_t round_ = 0;
  std::array<std::uint32_t, 4> words_{};
  std::size_t at_ = 4;
};

// A document that grows token by token.
class Writer {
 public:
  void add(std::int64_t token, bool is_answer = false) {
    document_.tokens.push_back(static_cast<std::int32_t>(token));
    document_.mask.push_back(is_answer ? 1 : 0);
  }
  void add(std::string_view text, bool is_answer = false) {
    for (const char letter : text) add(static_cast<unsigned char>(letter), is_answer);
  }
  // Spaces up to the end, which is never asked for.
  SyntheticDocument finish(std::int64_t length) {
    while (std::ssize(document_.tokens) < length - 1) add(" ");
    document_.mask.push_back(0);
    return std::move(document_);
  }

 private:
  SyntheticDocument document_;
};

std::int64_t size_of_problem(const SyntheticOptions& options, Draws& draws) {
  return options.least_size > 0 ? draws.from_to(options.least_size, options.size) : options.size;
}

SyntheticDocument make_mqar(const SyntheticOptions& options, Draws& draws) {
  const std::int64_t half = options.symbols / 2;
  const std::int64_t num_pairs = size_of_problem(options, draws);
  const std::vector<std::int64_t> keys = draws.different(num_pairs, half);
  std::vector<std::int64_t> values;
  Writer writer;
  for (const std::int64_t key : keys) {
    values.push_back(half + draws.below(half));
    writer.add(key);
    writer.add(values.back());
  }
  // Behind the pairs, places of two tokens; in some of them a key and its value.
  const std::int64_t num_left = options.length - 1 - 2 * num_pairs;
  const std::vector<std::int64_t> places = draws.different(num_pairs, num_left / 2);
  std::vector<std::int64_t> pair_at(static_cast<std::size_t>(num_left / 2), -1);
  for (std::size_t pair = 0; pair < keys.size(); ++pair)
    pair_at[static_cast<std::size_t>(places[pair])] = static_cast<std::int64_t>(pair);
  for (const std::int64_t pair : pair_at) {
    const auto at = static_cast<std::size_t>(pair);
    writer.add(pair < 0 ? half + draws.below(half) : keys[at]);
    writer.add(pair < 0 ? half + draws.below(half) : values[at], pair >= 0);
  }
  if (num_left % 2 != 0) writer.add(half + draws.below(half));
  return writer.finish(options.length);
}

SyntheticDocument make_copy(const SyntheticOptions& options, Draws& draws) {
  std::string letters;
  for (std::int64_t left = size_of_problem(options, draws); left > 0; --left)
    letters += static_cast<char>('a' + draws.below(options.symbols));
  Writer writer;
  writer.add(letters);
  writer.add("|");
  writer.add(letters, true);
  return writer.finish(options.length);
}

constexpr std::string_view noise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
constexpr std::array<std::string_view, 16> words = {
    "amber", "birch", "cloud", "delta", "ember", "frost", "grape", "haven",
    "ivory", "jolly", "koala", "lemon", "maple", "north", "ocean", "pearl"};

// The sentence with the number, the question, and the number as its answer.
struct Needle {
  std::string sentence, question, digits;
  std::int64_t size() const {
    return std::ssize(sentence) + std::ssize(question) + std::ssize(digits);
  }
};

Needle needle_of(std::string_view word, std::string digits) {
  return {fmt::format("The magic number of {} is {}. ", word, digits),
          fmt::format("What is the magic number of {}? It is ", word), std::move(digits)};
}

SyntheticDocument make_needle(const SyntheticOptions& options, Draws& draws) {
  const std::string_view word = words[static_cast<std::size_t>(draws.below(std::ssize(words)))];
  std::string digits;
  for (std::int64_t left = size_of_problem(options, draws); left > 0; --left)
    digits += static_cast<char>('0' + draws.below(10));
  const Needle needle = needle_of(word, std::move(digits));
  const std::int64_t num_noise = options.length - 1 - needle.size();
  const std::int64_t before = draws.below(num_noise + 1);
  Writer writer;
  for (std::int64_t i = 0; i < num_noise; ++i) {
    if (i == before) writer.add(needle.sentence);
    writer.add(noise.substr(static_cast<std::size_t>(i) % noise.size(), 1));
  }
  if (before == num_noise) writer.add(needle.sentence);
  writer.add(needle.question);
  writer.add(needle.digits, true);
  return writer.finish(options.length);
}

constexpr std::int64_t most_arguments = 5;

struct Expression {
  std::string text;
  std::int64_t value = 0;
};

std::int64_t apply(char operation, std::vector<std::int64_t> values) {
  std::ranges::sort(values);
  switch (operation) {
    case 'X':
      return values.back();
    case 'N':
      return values.front();
    case 'D':
      return values[(values.size() - 1) / 2];
    default:
      return std::accumulate(values.begin(), values.end(), std::int64_t{0}) % 10;
  }
}

// At least one argument is as deep as may be, so that the depth is what was asked for. room: for
// letters, less than 0 when it does not suffice; what is returned is then no whole expression.
Expression make_expression(std::int64_t depth, Draws& draws, std::int64_t& room) {
  room -= depth == 0 ? 1 : 3;
  if (room < 0) return {};
  if (depth == 0) {
    const std::int64_t digit = draws.below(10);
    return {std::string(1, static_cast<char>('0' + digit)), digit};
  }
  const char operation = "XNDS"[draws.below(4)];
  const std::int64_t num_arguments = draws.from_to(2, most_arguments);
  const std::int64_t deepest = draws.below(num_arguments);
  std::string text{operation, '('};
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < num_arguments; ++i) {
    const std::int64_t below = i == deepest ? depth - 1 : draws.below(depth);
    const Expression argument = make_expression(below, draws, room);
    if (room < 0) return {};
    text += argument.text;
    values.push_back(argument.value);
  }
  return {text + ')', apply(operation, std::move(values))};
}

// Of the least text: two arguments everywhere, one of them a digit, then "=" and the answer.
std::int64_t least_listops(std::int64_t depth) {
  return 4 * depth + 1 + 2;
}

// Expressions that are too long are drawn again; after some of them less deep ones are taken.
SyntheticDocument make_listops(const SyntheticOptions& options, Draws& draws) {
  constexpr int tries_of_a_depth = 64;
  std::int64_t depth = size_of_problem(options, draws);
  Expression expression;
  for (int tries = 1;; ++tries) {
    std::int64_t room = options.length - 1 - 2;  // the rest is for "=" and the answer
    expression = make_expression(depth, draws, room);
    if (room >= 0) break;
    if (tries % tries_of_a_depth == 0 && depth > 1) --depth;
  }
  Writer writer;
  writer.add(expression.text + "=");
  writer.add('0' + expression.value, true);
  return writer.finish(options.length);
}

SyntheticDocument make_parity(const SyntheticOptions& options, Draws& draws) {
  Writer writer;
  std::int64_t num_ones = 0;
  for (std::int64_t left = size_of_problem(options, draws); left > 0; --left) {
    const std::int64_t bit = draws.below(2);
    writer.add('0' + bit);
    num_ones += bit;
  }
  writer.add("=");
  writer.add('0' + num_ones % 2, true);
  return writer.finish(options.length);
}

// Tokens that the largest problem needs, without the end of its document.
std::int64_t tokens_of(const SyntheticOptions& options) {
  switch (options.task) {
    case SyntheticTask::mqar:
      return 4 * options.size;
    case SyntheticTask::copy:
      return 2 * options.size + 1;
    case SyntheticTask::needle:
      return needle_of(words.front(), std::string(static_cast<std::size_t>(options.size), '0'))
          .size();
    case SyntheticTask::listops:
      return least_listops(options.size);
    case SyntheticTask::parity:
      return options.size + 2;
  }
  return 0;
}

void require_range(std::string_view option, std::int64_t value, std::int64_t least,
                   std::int64_t most) {
  if (value < least || value > most)
    throw ConfigError(
        fmt::format("prepare: --{} must be from {} to {}, got {}", option, least, most, value));
}

bool has_symbols(SyntheticTask task) {
  return task == SyntheticTask::mqar || task == SyntheticTask::copy;
}

}  // namespace

SyntheticOptions with_defaults(SyntheticOptions options) {
  const bool is_mqar = options.task == SyntheticTask::mqar;
  if (options.symbols == 0 && has_symbols(options.task)) options.symbols = is_mqar ? 256 : 26;
  if (options.size == 0)
    options.size = options.task == SyntheticTask::needle    ? 7
                   : options.task == SyntheticTask::listops ? 3
                                                            : 16;
  return options;
}

void check_synthetic(const SyntheticOptions& options) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  require_range("documents", options.num_documents, 1, most);
  require_range("length", options.length, 4, most);
  require_range("size", options.size, 1, most);
  require_range("least-size", options.least_size, 0, options.size);
  if (!has_symbols(options.task) && options.symbols != 0)
    throw ConfigError(fmt::format("prepare: --symbols counts with the tasks mqar and copy, not {}",
                                  name_of(options.task)));
  if (options.task == SyntheticTask::copy) require_range("symbols", options.symbols, 2, 26);
  if (options.task == SyntheticTask::mqar) {
    require_range("symbols", options.symbols, 4, 256);
    if (options.symbols % 2 != 0)
      throw ConfigError(fmt::format("prepare: --symbols {} of mqar is odd; half of them are keys",
                                    options.symbols));
    if (options.size > options.symbols / 2)
      throw ConfigError(
          fmt::format("prepare: --size {} of mqar needs as many different keys, and half of {} "
                      "symbols are keys",
                      options.size, options.symbols));
  }
  if (options.task == SyntheticTask::listops) require_range("size", options.size, 1, 16);
  if (tokens_of(options) > options.length - 1)
    throw ConfigError(fmt::format(
        "prepare: a problem of {} with --size {} needs {} tokens and one that ends it; --length is "
        "{}",
        name_of(options.task), options.size, tokens_of(options), options.length));
}

SyntheticDocument make_synthetic(const SyntheticOptions& options, std::uint64_t seed,
                                 std::int64_t document) {
  Draws draws(options, seed, document);
  switch (options.task) {
    case SyntheticTask::mqar:
      return make_mqar(options, draws);
    case SyntheticTask::copy:
      return make_copy(options, draws);
    case SyntheticTask::needle:
      return make_needle(options, draws);
    case SyntheticTask::listops:
      return make_listops(options, draws);
    case SyntheticTask::parity:
      return make_parity(options, draws);
  }
  throw InternalError("a task");
}

std::string describe_synthetic(const SyntheticOptions& options, std::uint64_t seed) {
  nlohmann::ordered_json json = {{"task", name_of(options.task)},
                                 {"documents", options.num_documents},
                                 {"length", options.length},
                                 {"size", options.size},
                                 {"seed", seed}};
  if (options.least_size > 0) json["least_size"] = options.least_size;
  if (has_symbols(options.task)) json["symbols"] = options.symbols;
  return json.dump();
}

}  // namespace switchyard
