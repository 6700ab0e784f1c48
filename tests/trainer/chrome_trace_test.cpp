#include "trainer/run/meters/chrome_trace.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace switchyard::test {
namespace {

ExchangeSpan exchange(std::int64_t entered, std::int64_t left) {
  return {.record = {.bytes_sent = 100, .entered = entered, .waited = left - 10, .left = left},
          .group = "expert"};
}

TEST(ChromeTrace, ExchangesThatOverlapLieOnTracksOfTheirOwn) {
  const std::vector<ExchangeSpan> exchanges = {exchange(0, 100), exchange(50, 150),
                                               exchange(100, 120), exchange(110, 130),
                                               exchange(150, 160)};
  EXPECT_EQ(tracks_of(exchanges), (std::vector<std::size_t>{0, 1, 0, 2, 0}));
}

TEST(ChromeTrace, TimesAreMicrosecondsSinceTheOrigin) {
  RankTimeline timeline{.rank = 3, .host = "a \"host\"", .steps = {}};
  timeline.steps.push_back({.step = 12,
                            .begin = 2'000'000,
                            .end = 9'000'000,
                            .computation = {{.part = Part::experts,
                                             .layer = 1,
                                             .backward = true,
                                             .begin = 3'000'000,
                                             .end = 4'500'000}},
                            .exchanges = {exchange(5'000'000, 6'000'000)}});
  std::string text = "[" + chrome_events(timeline, 1'000'000);
  text.resize(text.rfind(','));
  const nlohmann::json events = nlohmann::json::parse(text + "]");
  std::map<std::string, nlohmann::json> spans;
  for (const nlohmann::json& event : events) {
    EXPECT_EQ(event["pid"], 3);
    if (event["ph"] == "X") spans[event["cat"]] = event;
    if (event["name"] == "process_name") {
      EXPECT_EQ(event["args"]["name"], "rank 3 (a \"host\")");
    }
  }
  EXPECT_EQ(spans["step"]["ts"], 1000.0);
  EXPECT_EQ(spans["step"]["dur"], 7000.0);
  EXPECT_EQ(spans["computation"]["name"], "experts");
  EXPECT_EQ(spans["computation"]["ts"], 2000.0);
  EXPECT_EQ(spans["computation"]["dur"], 1500.0);
  EXPECT_EQ(spans["computation"]["args"]["pass"], "backward");
  EXPECT_EQ(spans["computation"]["tid"], spans["step"]["tid"]);
  EXPECT_NE(spans["exchange"]["tid"], spans["step"]["tid"]);
  EXPECT_EQ(spans["exchange"]["args"]["bytes_sent"], 100);
  EXPECT_EQ(spans["exchange"]["args"]["waited_us"], 0.01);
}

}  // namespace
}  // namespace switchyard::test
