#include "trainer/run/train_run.hpp"

#include <fmt/core.h>

#include <optional>
#include <system_error>

#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/resume.hpp"
#include "trainer/run/run.hpp"
#include "trainer/run_device.hpp"
#include "trainer/thread_limit.hpp"
#include "trainer/watch/shared_folder.hpp"

namespace switchyard {

namespace {

// What an error of one rank alone, or of all, leaves behind before it ends the run. The watchdog
// and the log are null if it came before them.
void record_failure(Group& world, const std::string& output, Watchdog* watchdog, RankLog* log,
                    ExitCode code, const std::string& what, bool known_to_all, std::int64_t step) {
  if (log != nullptr)
    log->info(fmt::format("ended with code {}: {}", static_cast<int>(code), what));
  if (known_to_all) {
    if (world.rank() == 0) write_exit_file(output, code, what, step);
    return;
  }
  if (watchdog != nullptr && !watchdog->claim_failure(static_cast<int>(code))) return;
  const Topology& topology = world.topology();
  write_exit_file(output, code,
                  fmt::format("rank {} ({}): {}", world.rank(),
                              topology.name_of(topology.host_of(world.rank())), what),
                  step);
}

}  // namespace

ExitCode run_training(Group& world, CollectiveLog& collectives, const Config& asked,
                      const RunStart& start, StopSignal& stop) {
  set_threads(asked.run, world);  // first: it refuses numbers that cannot be
  Config given = asked;
  const std::string& output = given.run.output;
  std::unique_ptr<RunFolder> folder;
  Course course;
  run_together(world, [&] {
    if (world.rank() != 0) return;
    require_named_checkpoint(given.checkpoint);
    if (checkpoint_steps_in(output + "/checkpoints").empty()) require_start(given.checkpoint);
    folder = std::make_unique<RunFolder>(output);
    course = choose_course(output, folder->marker(), given.checkpoint, start.job);
    SideFiles::prepare(output);
  });
  world.broadcast_text(course.resume, 0);
  given.checkpoint.resume = course.resume;
  std::unique_ptr<Watchdog> watchdog;
  std::unique_ptr<RankLog> log;
  std::unique_ptr<TokenFile> tokens;
  Config config;
  std::optional<Run> run;
  const auto fail = [&](ExitCode code, const std::string& what, bool known_to_all) {
    record_failure(world, output, watchdog.get(), log.get(), code, what, known_to_all,
                   run ? run->step() : 0);
  };
  try {
    require_shared(world, "run.output", output);
    run_together(world, [&] {
      watchdog =
          std::make_unique<Watchdog>(collectives, world.topology(), given.watchdog, output, &stop);
      log = std::make_unique<RankLog>(output + "/logs", world.rank());
      tokens = std::make_unique<TokenFile>(given.data.path);
      config = resolve_config(given, world.size(), *tokens);
    });
    config.run.device = resolved_device(config, world);
    if (folder && !folder->note().empty()) log->warning(folder->note());

    run.emplace(world, collectives, *watchdog, config, start, course, stop, folder.get(), *log);
    const ExitCode code = run->train(*tokens);
    if (folder)
      folder->write_exit(code, code == ExitCode::done ? "done" : run->stopped_by(), run->step());
    return code;
  } catch (const Error& error) {
    fail(error.code(), error.what(), dynamic_cast<const KnownToAllRanks*>(&error) != nullptr);
    throw;
  } catch (const std::bad_alloc&) {
    fail(ExitCode::memory, "out of memory", false);
    throw;
  } catch (const std::system_error& error) {
    const bool is_shortage = is_thread_shortage(error);
    fail(is_shortage ? ExitCode::memory : ExitCode::internal,
         is_shortage ? no_thread_text() : error.what(), false);
    throw;
  } catch (const std::exception& error) {
    fail(ExitCode::internal, error.what(), false);
    throw;
  }
}

}  // namespace switchyard
