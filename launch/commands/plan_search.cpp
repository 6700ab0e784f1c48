#include "launch/commands/plan_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/commands/table_text.hpp"
#include "launch/config/relations.hpp"
#include "tensor/error.hpp"
#include "trainer/batch_layout.hpp"
#include "trainer/number_text.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

std::vector<std::int64_t> divisors_of(std::int64_t n) {
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d <= n; ++d)
    if (n % d == 0) divisors.push_back(d);
  return divisors;
}

// With the same step: the same tokens, cut otherwise. A micro-batch of each power of two, and all.
std::vector<std::int64_t> micro_batches_of(std::int64_t sequences_of_rank) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = 1; size < sequences_of_rank; size *= 2)
    if (sequences_of_rank % size == 0) sizes.push_back(size);
  sizes.push_back(sequences_of_rank);
  return sizes;
}

bool is_legal(const LoadedConfig& loaded, int num_ranks) {
  return broken_relations(loaded, std::vector<bool>(schema().size(), false)).empty() &&
         broken_relations_for_ranks(loaded, num_ranks).empty();
}

class Search {
 public:
  explicit Search(const SearchProblem& problem) : problem_(problem) {}

  SearchResult run() {
    const auto begin = std::chrono::steady_clock::now();
    const std::int64_t num_experts = problem_.loaded.config.experts.num_experts;
    for (const std::int64_t context : divisors_of(problem_.num_ranks)) {
      const std::optional<ContextConfig> split = split_of(context);
      for (const std::int64_t expert : divisors_of(problem_.num_ranks))
        if (split && expert <= std::max<std::int64_t>(1, num_experts))
          try_degrees(context, *split, expert);
    }
    std::ranges::stable_sort(result_.ranked, {}, [](const Candidate& candidate) {
      return candidate.prediction.seconds;
    });
    std::ranges::stable_sort(result_.pruned, {}, &Candidate::peak_bytes);
    result_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return std::move(result_);
  }

 private:
  // How so many ranks share a sequence: chosen once, for micro-batches of one sequence. None if
  // they cannot.
  std::optional<ContextConfig> split_of(std::int64_t context) {
    Config config = problem_.loaded.config;
    config.parallel.context = context;
    config.parallel.data = 0;
    config.parallel.expert = 1;
    config.train.micro_batch = 1;
    if (context == 1) return config.parallel.context_split;
    try {
      return resolved_parallel(config, problem_.num_ranks).context_split;
    } catch (const ConfigError&) {
      ++result_.num_illegal;
      return std::nullopt;
    }
  }

  void try_degrees(std::int64_t context, const ContextConfig& split, std::int64_t expert) {
    const std::int64_t data = problem_.num_ranks / context;
    const std::int64_t global_batch = problem_.loaded.config.train.global_batch;
    if (global_batch % data != 0) {
      ++result_.num_illegal;
      return;
    }
    for (const std::int64_t micro_batch : micro_batches_of(global_batch / data))
      for (const LayerPolicy policy : {LayerPolicy::keep, LayerPolicy::recompute}) {
        LoadedConfig tried = problem_.loaded;
        tried.config.parallel.data = data;
        tried.config.parallel.context = context;
        tried.config.parallel.context_split = split;
        tried.config.parallel.expert = expert;
        tried.config.train.micro_batch = micro_batch;
        tried.config.activations.policy = policy;
        if (is_legal(tried, problem_.num_ranks))
          plan(tried.config);
        else
          ++result_.num_illegal;
      }
  }

  void plan(const Config& config) {
    const Plan plan = plan_first_rank(config, problem_.num_ranks, problem_.vocab_size,
                                      StepRecords::alike_once, problem_.memory_bytes);
    Candidate candidate{.parallel = plan.parallel,
                        .micro_batch = config.train.micro_batch,
                        .policy = config.activations.policy,
                        .peak_bytes = plan.ranks.front().peak_bytes};
    candidate.fits = problem_.memory_bytes == 0 || candidate.peak_bytes <= problem_.memory_bytes;
    if (!candidate.fits) {
      result_.pruned.push_back(candidate);
      return;
    }
    candidate.prediction =
        predict_step(plan, compute_dtype(config.run), problem_.profile, problem_.setting,
                     {.extrapolate = problem_.extrapolate, .rows = rows_of(config)});
    result_.ranked.push_back(std::move(candidate));
  }

  const RowsOfRanks& rows_of(const Config& config) {
    const auto known = rows_.find(config.parallel.expert);
    if (known != rows_.end()) return known->second;
    return rows_.emplace(config.parallel.expert, problem_.rows_of(config)).first->second;
  }

  const SearchProblem& problem_;
  SearchResult result_;
  std::map<std::int64_t, RowsOfRanks> rows_;  // by the degree `expert`
};

// What takes the most seconds more than in the best layout.
std::string reason_of(const Candidate& candidate, const Candidate& best) {
  const StepTimes& times = candidate.prediction.times;
  const StepTimes& least = best.prediction.times;
  std::size_t worst = 0;
  const auto more = [&](std::size_t part) { return times.parts[part] - least.parts[part]; };
  for (std::size_t part = 1; part < num_parts; ++part)
    if (more(part) > more(worst)) worst = part;
  if (&candidate == &best) {
    const auto largest = std::ranges::max_element(times.parts) - times.parts.begin();
    return fmt::format("{:.0f} % in {}, {:.0f} % waiting for exchanges",
                       100 * times.parts[static_cast<std::size_t>(largest)] / times.seconds,
                       name_of(static_cast<Part>(largest)),
                       100 * times.wait_seconds() / times.seconds);
  }
  const double waits = times.waits[worst] - least.waits[worst];
  return fmt::format("{} {:+.1f} %{}", name_of(static_cast<Part>(worst)),
                     100 * more(worst) / least.seconds,
                     waits > more(worst) / 2 ? ", waiting for exchanges" : "");
}

std::vector<std::string> row_of(const Candidate& candidate) {
  return {fmt::format("data {} context {} expert {}", candidate.parallel.data,
                      candidate.parallel.context, candidate.parallel.expert),
          std::to_string(candidate.micro_batch), std::string(name_of(candidate.policy)),
          format_bytes(static_cast<double>(candidate.peak_bytes))};
}

}  // namespace

SearchResult search_layouts(const SearchProblem& problem) {
  return Search(problem).run();
}

std::string search_text(const SearchResult& result, std::int64_t most_shown) {
  std::string text = fmt::format(
      "{} legal layouts: {} fit into memory, {} do not ({} others are not legal); {:.1f} s\n",
      result.ranked.size() + result.pruned.size(), result.ranked.size(), result.pruned.size(),
      result.num_illegal, result.seconds);
  std::vector<std::vector<std::string>> rows;
  const bool none_fits = result.ranked.empty();
  const std::vector<Candidate>& shown = none_fits ? result.pruned : result.ranked;
  rows.push_back({"layout", "micro_batch", "activations", "memory"});
  if (!none_fits) rows.back().insert(rows.back().end(), {"seconds", "tokens/s", "why"});
  for (std::size_t i = 0; i < shown.size() && i < static_cast<std::size_t>(most_shown); ++i) {
    rows.push_back(row_of(shown[i]));
    if (none_fits) continue;
    const StepPrediction& prediction = shown[i].prediction;
    rows.back().insert(rows.back().end(), {fmt::format("{:.4g}", prediction.seconds),
                                           fmt::format("{:.4g}", prediction.tokens_per_second),
                                           reason_of(shown[i], shown.front())});
  }
  if (shown.empty()) return text;
  if (none_fits) text += "None fits; those that need the least:\n";
  return text + table_text(rows);
}

std::string search_json(const SearchResult& result, std::int64_t most_shown) {
  nlohmann::ordered_json json = {{"num_legal", result.ranked.size() + result.pruned.size()},
                                 {"num_fitting", result.ranked.size()},
                                 {"num_illegal", result.num_illegal},
                                 {"search_seconds", result.seconds},
                                 {"layouts", nlohmann::ordered_json::array()}};
  for (std::size_t i = 0; i < result.ranked.size() && i < static_cast<std::size_t>(most_shown);
       ++i) {
    const Candidate& each = result.ranked[i];
    json["layouts"].push_back({{"data", each.parallel.data},
                               {"context", each.parallel.context},
                               {"expert", each.parallel.expert},
                               {"micro_batch", each.micro_batch},
                               {"policy", name_of(each.policy)},
                               {"memory_bytes", each.peak_bytes},
                               {"step_seconds", each.prediction.seconds},
                               {"tokens_per_second", each.prediction.tokens_per_second},
                               {"reason", reason_of(each, result.ranked.front())}});
  }
  return json.dump(2);
}

}  // namespace switchyard
