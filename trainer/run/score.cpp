#include "trainer/run/score.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "kernels/rows/cross_entropy.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/run_device.hpp"

namespace switchyard {

namespace {

// Tokens of a rank in one micro-step, about.
constexpr std::int64_t tokens_at_once = 4096;

std::string text_field(const nlohmann::json& row, const char* name, const std::string& place) {
  if (!row.contains(name) || !row.at(name).is_string())
    throw DataError(
        fmt::format("{}: has no text \"{}\"; a row is {{\"context\": ..., "
                    "\"continuation\": ...}} or {{\"text\": ...}}",
                    place, name));
  return row.at(name).get<std::string>();
}

ScoreRequest parse_request(const std::string& line, const std::string& place) {
  const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
  if (!row.is_object()) throw DataError(fmt::format("{}: is not a JSON object", place));
  if (row.contains("text") && (row.contains("context") || row.contains("continuation")))
    throw DataError(fmt::format("{}: has \"text\" beside a context or a continuation", place));
  if (row.contains("text")) return {"", text_field(row, "text", place), true};
  return {text_field(row, "context", place), text_field(row, "continuation", place), false};
}

void add_continuation(const ScoreRequest& request, std::size_t number, const Tokenizer& tokenizer,
                      bool document_mask, std::int64_t max_length,
                      std::vector<ScoreWindow>& windows) {
  const std::string whole = request.context + request.text;
  const std::size_t last = request.context.find_last_not_of(" \t\n\r\v\f");
  const std::string_view context =
      std::string_view(whole).substr(0, last == std::string::npos ? 0 : last + 1);
  const std::vector<std::int32_t> tokens = tokenizer.encode(whole);
  const std::size_t num_context = std::min(tokens.size(), tokenizer.encode(context).size());
  ScoreWindow window{tokens_before_text(tokenizer, num_context > 0, document_mask),
                     static_cast<std::int64_t>(tokens.size() - num_context), number};
  if (window.num_counted == 0)
    throw DataError(fmt::format("row {}: the continuation has no tokens", number + 1));
  if (window.num_counted > max_length)
    throw DataError(fmt::format(
        "row {}: the continuation has {} tokens, but the model reads {} at most; score it as "
        "{{\"text\": ...}}",
        number + 1, window.num_counted, max_length));
  window.tokens.insert(window.tokens.end(), tokens.begin(), tokens.end());
  const auto too_many = std::max<std::int64_t>(0, std::ssize(window.tokens) - max_length - 1);
  window.tokens.erase(window.tokens.begin(), window.tokens.begin() + too_many);
  windows.push_back(std::move(window));
}

// Every token is counted once; a window that counts few has as many before them as fit.
void add_rolling(const ScoreRequest& request, std::size_t number, const Tokenizer& tokenizer,
                 bool document_mask, std::int64_t max_length, std::vector<ScoreWindow>& windows) {
  std::vector<std::int32_t> tokens = tokens_before_text(tokenizer, false, document_mask);
  const std::int64_t num_before = std::ssize(tokens);
  const std::vector<std::int32_t> text = tokenizer.encode(request.text);
  tokens.insert(tokens.end(), text.begin(), text.end());
  for (std::int64_t done = num_before; done < std::ssize(tokens);) {
    const std::int64_t room = done == num_before ? max_length + 1 : done + max_length;
    const std::int64_t end = std::min(std::ssize(tokens), room);
    const std::int64_t begin = std::max<std::int64_t>(0, end - max_length - 1);
    windows.push_back({{tokens.begin() + begin, tokens.begin() + end}, end - done, number});
    done = end;
  }
}

// The windows of one rank in one micro-step, as a batch.
class ScoreBatches {
 public:
  ScoreBatches(const std::vector<ScoreWindow>& windows, const BatchLayout& layout)
      : windows_(windows), layout_(layout) {}

  std::int64_t num_micro_steps() const {
    const std::int64_t at_once = layout_.micro_batch * layout_.data_size;
    return (std::ssize(windows_) + at_once - 1) / at_once;
  }
  // Numbers of this rank's windows in a micro-step: [begin, end).
  std::pair<std::int64_t, std::int64_t> range(std::int64_t micro_step) const {
    const std::int64_t at_once = layout_.micro_batch * layout_.data_size;
    const std::int64_t first = micro_step * at_once;
    const std::int64_t count = std::min(at_once, std::ssize(windows_) - first);
    return {first + count * layout_.data_rank / layout_.data_size,
            first + count * (layout_.data_rank + 1) / layout_.data_size};
  }
  Batch batch(std::int64_t micro_step) const {
    const auto [begin, end] = range(micro_step);
    const auto length = static_cast<std::size_t>(layout_.sequence_length);
    const auto num_rows = static_cast<std::size_t>(layout_.micro_batch);
    Batch batch;
    batch.tokens.assign(num_rows * length, 0);
    batch.targets.assign(num_rows * length, kernels::no_target);
    batch.sequence_ids.assign(num_rows, -1);
    if (layout_.with_documents) batch.document_starts.resize(num_rows);
    batch.num_padding = layout_.micro_batch - (end - begin);
    for (std::int64_t i = begin; i < end; ++i) {
      const ScoreWindow& window = windows_[static_cast<std::size_t>(i)];
      const auto row = static_cast<std::size_t>(i - begin);
      const auto at = static_cast<std::ptrdiff_t>(row * length);
      const std::int64_t num_inputs = std::ssize(window.tokens) - 1;
      std::copy_n(window.tokens.begin(), num_inputs, batch.tokens.begin() + at);
      std::copy(window.tokens.end() - window.num_counted, window.tokens.end(),
                batch.targets.begin() + at + num_inputs - window.num_counted);
      batch.sequence_ids[row] = i;
    }
    return batch;
  }

 private:
  const std::vector<ScoreWindow>& windows_;
  BatchLayout layout_;
};

// The configuration that scores: sequences as long as the longest window, as many at once as make a
// piece of work, experts spread over so many ranks.
Config scoring_config(const Config& given, const std::vector<ScoreWindow>& windows, int num_ranks,
                      std::int64_t expert_ranks, const Tokenizer& tokenizer) {
  Config config = given;
  if (config.model.vocab_size == 0) config.model.vocab_size = tokenizer.vocab_size();
  std::int64_t longest = 1;
  for (const ScoreWindow& window : windows)
    longest = std::max(longest, std::ssize(window.tokens) - 1);
  // Learned positions have the given length, and a router that sees the future sees padding, too.
  if (config.model.position.kind != PositionKind::absolute && !config.experts.allow_future)
    config.model.sequence_length = longest;
  config.parallel = {};
  config.parallel.expert = expert_ranks;
  config.numerics = {};
  config.data.mixture = "none";
  config.data.loss_mask = false;
  config.activations = ActivationsConfig();
  config.activations.policy = LayerPolicy::recompute;
  config.capture = {};
  const auto share = std::max<std::int64_t>(1, (std::ssize(windows) + num_ranks - 1) / num_ranks);
  config.train.micro_batch =
      std::clamp<std::int64_t>(tokens_at_once / config.model.sequence_length, 1, share);
  config.train.global_batch = config.train.micro_batch * num_ranks;
  config.parallel = resolved_parallel(config, num_ranks);
  return config;
}

// Adds what a rank's windows of one micro-step say. Sums are taken in the order of the tokens.
void add_scores(const ScoreBatches& batches, std::int64_t micro_step,
                const std::vector<ScoreWindow>& windows, const TokenScores& scores,
                std::int64_t length, std::span<double> log_likelihoods, std::span<double> misses) {
  const auto [begin, end] = batches.range(micro_step);
  for (std::int64_t i = begin; i < end; ++i) {
    const ScoreWindow& window = windows[static_cast<std::size_t>(i)];
    const std::int64_t behind = (i - begin) * length + std::ssize(window.tokens) - 1;
    for (std::int64_t t = behind - window.num_counted; t < behind; ++t) {
      log_likelihoods[static_cast<std::size_t>(i)] -= scores.losses[static_cast<std::size_t>(t)];
      misses[static_cast<std::size_t>(i)] += scores.is_greedy[static_cast<std::size_t>(t)] ? 0 : 1;
    }
  }
}

}  // namespace

std::vector<ScoreRequest> read_score_requests(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw DataError(fmt::format("{}: cannot be opened", path));
  std::vector<ScoreRequest> requests;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    requests.push_back(parse_request(line, fmt::format("{}:{}", path, number)));
  }
  if (requests.empty()) throw DataError(fmt::format("{}: holds no rows", path));
  return requests;
}

std::vector<ScoreWindow> score_windows(const std::vector<ScoreRequest>& requests,
                                       const Tokenizer& tokenizer, bool document_mask,
                                       std::int64_t max_length) {
  std::vector<ScoreWindow> windows;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].is_rolling)
      add_rolling(requests[i], i, tokenizer, document_mask, max_length, windows);
    else
      add_continuation(requests[i], i, tokenizer, document_mask, max_length, windows);
  }
  return windows;
}

std::string to_json(const ScoreRequest& request, const TextScore& score) {
  nlohmann::ordered_json row;
  row["log_likelihood"] = score.log_likelihood;
  if (!request.is_rolling) row["is_greedy"] = score.is_greedy;
  row["num_tokens"] = score.num_tokens;
  if (request.is_rolling) row["num_bytes"] = request.text.size();
  return row.dump();
}

std::vector<TextScore> score_requests(Group& world, CollectiveLog& log, const Config& given,
                                      const std::string& checkpoint, std::int64_t expert_ranks,
                                      const Tokenizer& tokenizer,
                                      const std::vector<ScoreRequest>& requests) {
  std::vector<ScoreWindow> windows;
  run_together(world, [&] {
    windows =
        score_windows(requests, tokenizer, given.data.document_mask, given.model.sequence_length);
  });
  Config config = scoring_config(given, windows, world.size(), expert_ranks, tokenizer);
  config.run.device = resolved_device(config, world);
  std::unique_ptr<Device> device = make_device_together(world, config);
  require_memory(world, config, make_plan(config, world.size(), tokenizer.vocab_size()));
  RankState rank(world, log, config, std::move(device), tokenizer.vocab_size());
  load_checkpoint(checkpoint, rank.trainer.store(), nullptr, world);
  rank.trainer.weights_changed();

  const BatchLayout layout = rank.trainer.batch_layout();
  const ScoreBatches batches(windows, layout);
  std::vector<double> log_likelihoods(windows.size()), misses(windows.size());
  for (std::int64_t micro_step = 0; micro_step < batches.num_micro_steps(); ++micro_step)
    add_scores(batches, micro_step, windows, rank.trainer.score(batches.batch(micro_step)),
               layout.sequence_length, log_likelihoods, misses);
  world.all_reduce_values(std::span(log_likelihoods), ReduceOp::sum);
  world.all_reduce_values(std::span(misses), ReduceOp::sum);

  std::vector<TextScore> scores(requests.size());
  for (std::size_t i = 0; i < windows.size(); ++i) {
    TextScore& score = scores[windows[i].request];
    score.log_likelihood += log_likelihoods[i];
    score.is_greedy = score.is_greedy && misses[i] == 0;
    score.num_tokens += windows[i].num_counted;
  }
  return scores;
}

}  // namespace switchyard
