// `switchyard score`: how probable a model finds texts, in the forms that public evaluation
// harnesses ask for.
//
//   {"context": C, "continuation": T}   log P(T | C), summed over the tokens of T; whether each of
//                                       them is the most probable one where it stands
//   {"text": T}                         log P(T) of a text of any length: in windows of the model's
//                                       length, every token once (rolling log-likelihood)
//
// C and T are encoded together, and T's tokens are those that C alone does not have; spaces at the
// end of C count to T. A text begins as in `generate` (tokens_before_text of data/tokenizer.hpp);
// of a row without context, and of a rolling text, the first token has something before it. Of a
// context that is too long the end is taken.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.hpp"
#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "trainer/config.hpp"

namespace switchyard {

struct ScoreRequest {
  std::string context;
  std::string text;  // the continuation, or all of a rolling text
  bool is_rolling = false;
};

// The rows of a .jsonl file. DataError with file and line for what is neither form.
std::vector<ScoreRequest> read_score_requests(const std::string& path);

// One sequence that the model reads: the inputs are all tokens but the last, the targets all but
// the first, of which the last num_counted count.
struct ScoreWindow {
  std::vector<std::int32_t> tokens;
  std::int64_t num_counted = 0;
  std::size_t request = 0;
};

// document_mask: of the configuration, with which a document does not see the end of another.
// DataError, with the request's number, where a continuation is empty or longer than max_length.
std::vector<ScoreWindow> score_windows(const std::vector<ScoreRequest>& requests,
                                       const Tokenizer& tokenizer, bool document_mask,
                                       std::int64_t max_length);

struct TextScore {
  double log_likelihood = 0;  // nats
  bool is_greedy = true;
  std::int64_t num_tokens = 0;
};
// {"log_likelihood": ..., "is_greedy": ..., "num_tokens": ...}; of a rolling text "num_bytes"
// instead of is_greedy.
std::string to_json(const ScoreRequest& request, const TextScore& score);

// The scores of all requests by a checkpoint, on all ranks of `world`, which share the windows out;
// the experts of a layer are spread over expert_ranks of them. The numbers depend on neither.
// Collective.
std::vector<TextScore> score_requests(Group& world, CollectiveLog& log, const Config& config,
                                      const std::string& checkpoint, std::int64_t expert_ranks,
                                      const Tokenizer& tokenizer,
                                      const std::vector<ScoreRequest>& requests);

}  // namespace switchyard
