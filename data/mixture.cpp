#include "data/mixture.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::string_view form =
    "write \"FILE.h5 WEIGHT, FILE.h5 WEIGHT\" or \"FILE.h5 N epochs, ...\"";

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

MixtureEntry parse_entry(std::string_view text) {
  const std::string_view whole = trimmed(text);
  std::string_view rest = whole;
  MixtureEntry entry;
  for (const std::string_view unit : {" epochs", " epoch"}) {
    if (!rest.ends_with(unit) || entry.is_epochs) continue;
    entry.is_epochs = true;
    rest = trimmed(rest.substr(0, rest.size() - unit.size()));
  }
  const std::size_t space = rest.rfind(' ');
  if (space == std::string_view::npos)
    throw ConfigError(fmt::format("\"{}\" is not a corpus with its share; {}", whole, form));
  const std::string_view number = rest.substr(space + 1);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), entry.amount);
  if (error != std::errc{} || end != number.data() + number.size() || !(entry.amount > 0) ||
      !std::isfinite(entry.amount))
    throw ConfigError(
        fmt::format("\"{}\": the share {} must be a number above 0; {}", whole, number, form));
  entry.path = trimmed(rest.substr(0, space));
  return entry;
}

// Places of a block for each corpus, by its weight: one at least, and all of them together.
std::vector<std::int64_t> quotas_of(std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> quotas;
  for (const double weight : weights)
    quotas.push_back(std::max<std::int64_t>(
        1, std::llround(weight / sum * static_cast<double>(Mixture::block))));
  // What rounding leaves over or takes too much is the largest's.
  *std::ranges::max_element(quotas) +=
      Mixture::block - std::accumulate(quotas.begin(), quotas.end(), std::int64_t{0});
  return quotas;
}

}  // namespace

std::vector<MixtureEntry> parse_mixture(std::string_view text) {
  std::vector<MixtureEntry> entries;
  text = trimmed(text);
  if (text.empty() || text == "none") return entries;
  while (true) {
    const std::size_t comma = text.find(',');
    entries.push_back(parse_entry(text.substr(0, comma)));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  constexpr std::size_t most = 1000;
  if (entries.size() > most)
    throw ConfigError(fmt::format("{} corpora are more than {}", entries.size(), most));
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].is_epochs != entries.front().is_epochs)
      throw ConfigError(fmt::format("{} has {}, {} has {}: give weights to all, or epochs to all",
                                    entries.front().path,
                                    entries.front().is_epochs ? "epochs" : "a weight",
                                    entries[i].path, entries[i].is_epochs ? "epochs" : "a weight"));
    for (std::size_t j = 0; j < i; ++j)
      if (entries[j].path == entries[i].path)
        throw ConfigError(fmt::format("{} is named twice", entries[i].path));
  }
  return entries;
}

void require_same_tokenizer(const TokenFile& corpus, const TokenFile& named) {
  if (corpus.tokenizer().serialize() == named.tokenizer().serialize()) return;
  throw DataError(fmt::format(
      "{}: has another tokenizer than {}: its ids mean other texts; prepare it with --tokenizer {}",
      corpus.path(), named.path(), named.path()));
}

Mixture::Mixture(std::span<const MixtureEntry> entries, std::span<const std::int64_t> num_sequences,
                 std::uint64_t seed) {
  expect(!entries.empty() && entries.size() == num_sequences.size(), "corpora and their sizes");
  std::vector<double> weights;
  for (std::size_t i = 0; i < entries.size(); ++i)
    weights.push_back(entries[i].is_epochs
                          ? entries[i].amount * static_cast<double>(num_sequences[i])
                          : entries[i].amount);
  quotas_ = quotas_of(weights);
  std::vector<std::size_t> corpus_of;  // of each place, before they are mixed
  for (std::size_t corpus = 0; corpus < quotas_.size(); ++corpus)
    corpus_of.insert(corpus_of.end(), static_cast<std::size_t>(quotas_[corpus]), corpus);
  const EpochPermutation order(block, random_words(random_key(seed, "mixture"), 0, 0)[0]);
  std::vector<std::int64_t> num_taken(quotas_.size());
  for (std::int64_t place = 0; place < block; ++place) {
    const std::size_t corpus = corpus_of[static_cast<std::size_t>(order(0, place))];
    places_.push_back({corpus, num_taken[corpus]++});
  }
}

Mixture::Place Mixture::operator()(std::int64_t sample) const {
  Place place = places_[static_cast<std::size_t>(sample % block)];
  place.sample += sample / block * quotas_[place.corpus];
  return place;
}

double Mixture::share(std::size_t corpus) const {
  return static_cast<double>(quotas_[corpus]) / static_cast<double>(block);
}

}  // namespace switchyard
