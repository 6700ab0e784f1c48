// The benchmarks by name: each takes of the request what it understands, refuses the rest
// (UsageError) and runs. Collective.
#pragma once

#include "launch/commands/bench_request.hpp"
#include "launch/commands/commands.hpp"

namespace switchyard {

void bench_step(const CommandContext& context, const BenchRequest& request,
                const bench::Output& output);
void bench_linear(const CommandContext& context, const BenchRequest& request,
                  const bench::Output& output);
void bench_attention(const CommandContext& context, const BenchRequest& request,
                     const bench::Output& output);
void bench_experts(const CommandContext& context, const BenchRequest& request,
                   const bench::Output& output);
void bench_dispatch(const CommandContext& context, const BenchRequest& request,
                    const bench::Output& output);
void bench_all_to_all(const CommandContext& context, const BenchRequest& request,
                      const bench::Output& output);
void bench_ring(const CommandContext& context, const BenchRequest& request,
                const bench::Output& output);
void bench_mixer(const CommandContext& context, const BenchRequest& request,
                 const bench::Output& output);
void bench_machine(const CommandContext& context, const BenchRequest& request,
                   const bench::Output& output);

}  // namespace switchyard
