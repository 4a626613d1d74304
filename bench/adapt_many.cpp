// Times Learner::predict_many and adapt_many with predict on the tasks of a file, as
// bench/python_overhead.py does in Python.
//   adapt_many RUN TASKS THREADS REPEATS
// TASKS (written by the script) holds 32-bit little-endian numbers: the number of tasks, then for
// each task its numbers of support and query rows, support inputs, support targets and query
// inputs. Inputs and targets are one float per row. Prints one line of JSON: the seconds of each
// repeat, processor time of all threads, and the sum of all predictions.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <vector>

#include "kshot/kshot.h"

namespace {

/// The tasks of a file.
struct Tasks {
  std::vector<float> numbers;
  std::vector<kshot::SupportRows> supports;
  std::vector<std::span<const float>> queries;
};

Tasks read_tasks(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  if (bytes.size() < 4) throw std::runtime_error("cannot read the tasks");
  Tasks tasks;
  tasks.numbers.resize(bytes.size() / 4);
  std::memcpy(tasks.numbers.data(), bytes.data(), 4 * tasks.numbers.size());
  std::size_t place = 0;
  const auto count = [&] {
    std::int32_t value = 0;
    std::memcpy(&value, bytes.data() + 4 * place++, 4);
    return static_cast<std::size_t>(value);
  };
  const auto rows = [&](std::size_t n) {
    const std::span<const float> found(&tasks.numbers.at(place), n);
    place += n;
    return found;
  };
  for (std::size_t left = count(); left > 0; --left) {
    const std::size_t support = count(), query = count();
    const std::span<const float> x = rows(support);
    tasks.supports.push_back({.x = x, .values = rows(support)});
    tasks.queries.push_back(rows(query));
  }
  return tasks;
}

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double sum_of(const std::vector<kshot::Prediction>& predictions) {
  double sum = 0.0;
  for (const kshot::Prediction& prediction : predictions) {
    for (const double value : prediction.mean) sum += value;
  }
  return sum;
}

/// Prints `name`: {"seconds": [...], "sum": ...}. The first run does not count.
template <class Work>
void measure(const char* name, int repeats, const Work& work) {
  double sum = sum_of(work());
  std::printf("\"%s\": {\"seconds\": [", name);
  for (int i = 0; i < repeats; ++i) {
    const double start = processor_seconds();
    const std::vector<kshot::Prediction> predictions = work();
    std::printf("%s%.6f", i > 0 ? ", " : "", processor_seconds() - start);
    sum = sum_of(predictions);
  }
  std::printf("], \"sum\": %.9g}", sum);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) throw std::runtime_error("expected RUN TASKS THREADS REPEATS");
  const Tasks tasks = read_tasks(argv[2]);
  const kshot::Learner learner(argv[1], {.threads = std::atoi(argv[3])});
  const int repeats = std::atoi(argv[4]);
  std::vector<kshot::TaskRows> both;
  for (std::size_t i = 0; i < tasks.supports.size(); ++i) {
    both.push_back({.support = tasks.supports[i], .query_x = tasks.queries[i]});
  }
  std::printf("{");
  measure("predict_many", repeats, [&] { return learner.predict_many(both); });
  std::printf(", ");
  measure("adapt_many", repeats,
          [&] { return learner.adapt_many(tasks.supports).predict(tasks.queries); });
  std::printf("}\n");
} catch (const std::exception& error) {
  std::fprintf(stderr, "adapt_many: %s\n", error.what());
  return 2;
}
