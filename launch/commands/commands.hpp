// The commands of `switchyard`, one file each. Every one parses its options first and returns 0
// when they asked for help.
#pragma once

#include "launch/command_line.hpp"

namespace switchyard {

int run_bench(const CommandContext& context);
int run_checkpoint(const CommandContext& context);
int run_config(const CommandContext& context);
int run_doctor(const CommandContext& context);
int run_eval(const CommandContext& context);
int run_export(const CommandContext& context);
int run_fit(const CommandContext& context);
int run_generate(const CommandContext& context);
int run_import(const CommandContext& context);
int run_plan(const CommandContext& context);
int run_prepare(const CommandContext& context);
int run_report(const CommandContext& context);
int run_score(const CommandContext& context);
int run_sweep(const CommandContext& context);
int run_trace(const CommandContext& context);
int run_train(const CommandContext& context);
int run_upcycle(const CommandContext& context);

}  // namespace switchyard
