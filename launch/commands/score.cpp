// switchyard score: log-likelihoods of texts by a run's newest checkpoint, on all ranks of the job.
#include <fmt/core.h>

#include <iostream>

#include "data/files/atomic_file.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/run/score.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

void write_scores(const std::vector<ScoreRequest>& requests, const std::vector<TextScore>& scores,
                  const std::string& output) {
  std::string text;
  for (std::size_t i = 0; i < requests.size(); ++i) text += to_json(requests[i], scores[i]) + "\n";
  if (output.empty())
    std::cout << text << std::flush;
  else
    write_file_atomically(output, text);
}

}  // namespace

int run_score(const CommandContext& context) {
  std::vector<std::string> arguments;
  std::string output;
  std::int64_t expert_ranks = 1;
  Options options(
      "score", "RUN FILE.jsonl",
      "Prints how probable a trained model finds texts, a JSON object a row of FILE. A row is "
      "{\"context\": C, \"continuation\": T}, for log P(T | C), or {\"text\": T} of any length. "
      "RUN is "
      "as for generate. Alone or under mpirun: the ranks share the rows.");
  options.add_path("output", "FILE", output, "where the rows go (default: the standard output)")
      .add("expert", "RANKS", expert_ranks,
           "ranks that the experts of a layer are spread over, as parallel.expert has it (default: "
           "1)")
      .arguments("RUN FILE.jsonl", arguments, 2, 2);
  if (!options.parse(context.arguments)) return 0;

  Group& world = context.session->world();
  if (expert_ranks < 1 || world.size() % expert_ranks != 0)
    throw UsageError("score",
                     fmt::format("--expert must divide the number of ranks, {}", world.size()));
  std::vector<ScoreRequest> requests;
  run_together(world, [&] { requests = read_score_requests(arguments[1]); });
  const Report report = [&](const std::string& text) {
    if (world.rank() == 0) std::cerr << text << '\n';
  };
  std::vector<TextScore> scores;
  TemporaryWatch watch(world, context.session->log(), WatchdogConfig(),
                       place_for_watch(world.topology()), "score");
  watch.run(world, [&] {
    read_checkpoint(arguments.front(), world, report, [&](const std::string& path) {
      Config config;
      std::unique_ptr<Tokenizer> tokenizer;
      run_together(world, [&] {
        const Manifest manifest = read_manifest(path);
        config = load_saved_config(manifest.configuration, path + "/" + manifest_name).config;
        tokenizer = tokenizer_of_checkpoint(path, config.data.path);
      });
      set_threads(config.run, world);
      watch.enter(RunSection::evaluation);
      scores = score_requests(world, context.session->log(), config, path, expert_ranks, *tokenizer,
                              requests);
    });
  });
  if (world.rank() == 0) write_scores(requests, scores, output);
  return 0;
}

}  // namespace switchyard
