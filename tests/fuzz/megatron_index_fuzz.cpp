// The index of a Megatron dataset: four bytes with the size of its .bin, then the .idx. What is
// read lies inside the .bin, sequence by sequence.
#include <cstdlib>
#include <cstring>

#include "data/formats/megatron_index.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/fuzz_target.hpp"
#include "tests/fuzz/memory_file.hpp"

namespace {

using switchyard::formats::MegatronIndex;

template <class Number>
void append(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

void check(const MegatronIndex& index, std::int64_t bin_bytes) {
  std::int64_t next = 0;
  for (std::int64_t document = 0; document < index.num_documents(); ++document) {
    const MegatronIndex::Range sequences = index.sequences_of(document);
    if (sequences.begin != next || sequences.end < next) std::abort();
    next = sequences.end;
    for (std::int64_t sequence = sequences.begin; sequence < sequences.end; ++sequence) {
      const MegatronIndex::Range bytes = index.bytes_of_sequence(sequence);
      if (bytes.begin < 0 || bytes.end < bytes.begin || bytes.end > bin_bytes) std::abort();
    }
  }
  if (next != index.num_sequences()) std::abort();
}

}  // namespace

std::vector<std::string> switchyard::fuzz::seeds() {
  std::vector<std::string> all;
  for (const std::uint8_t code : {4, 8}) {
    const std::int32_t lengths[] = {3, 1, 4};
    const std::int64_t documents[] = {0, 2, 3}, size = code == 4 ? 4 : 2;
    std::string bytes;
    append(bytes, static_cast<std::uint32_t>(8 * size));
    bytes += formats::megatron_magic;
    append(bytes, std::uint64_t{1});
    append(bytes, code);
    append(bytes, std::uint64_t{3});
    append(bytes, std::uint64_t{3});
    for (const std::int32_t length : lengths) append(bytes, length);
    std::int64_t begin = 0;
    for (const std::int32_t length : lengths) {
      append(bytes, begin);
      begin += length * size;
    }
    for (const std::int64_t document : documents) append(bytes, document);
    all.push_back(bytes);
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint32_t bin_bytes = 0;
  if (size < sizeof(bin_bytes)) return 0;
  std::memcpy(&bin_bytes, data, sizeof(bin_bytes));
  const switchyard::fuzz::MemoryFile file(data + sizeof(bin_bytes), size - sizeof(bin_bytes));
  try {
    check(MegatronIndex(file.path(), bin_bytes), bin_bytes);
  } catch (const switchyard::Error&) {
  }
  return 0;
}
