// An executable of one program: launches that a file records, each array in an allocation of its own size, so
// that a sanitizer sees the first byte past it. Written by tests/deep/kernel_sanitizers.py, read here:
//
//     launch   kernel[32] grid[3] threads shared order args buffers pointers      (int32 each)
//     args     bytes, then as many bytes           buffers  bytes (int64), then as many bytes
//     pointers place (arg, or ~buffer), offset in it, buffer, offset in that        (int64 each)
//
// The buffers are written back, in order, to the second file.
#pragma once
#include "emu.h"

namespace emu {

struct Entry {
  const char* name;
  int (*run)(const int*, int, unsigned, int, void**);
};

template <class T>
inline T read(FILE* file) {
  T value;
  if (fread(&value, sizeof value, 1, file) != 1) exit(3);
  return value;
}

inline std::vector<char*> read_blocks(FILE* file, int count, std::vector<i64>& sizes) {
  std::vector<char*> blocks;
  for (int i = 0; i < count; i++) {
    sizes.push_back(read<i64>(file));
    char* block = (char*)aligned_alloc(64, (sizes[i] + 63) / 64 * 64);
    char* exact = sizes[i] % 64 ? (char*)malloc(sizes[i]) : block;  // malloc aligns to 16, and ends where it ends
    if (exact != block) free(block);
    if (sizes[i] && fread(exact, sizes[i], 1, file) != 1) exit(3);
    blocks.push_back(exact);
  }
  return blocks;
}

inline int main_of(const std::vector<Entry>& entries, int argc, char** argv) {
  if (argc != 3) return 2;
  FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
  char name[32];
  while (in && out && fread(name, sizeof name, 1, in) == 1) {
    int head[9];  // grid[3] threads shared order args buffers pointers
    for (int& x : head) x = read<int>(in);
    std::vector<i64> sizes, ignored;
    std::vector<char*> args = read_blocks(in, head[6], ignored), buffers = read_blocks(in, head[7], sizes);
    for (int i = 0; i < head[8]; i++) {
      const i64 place = read<i64>(in), offset = read<i64>(in), buffer = read<i64>(in), inside = read<i64>(in);
      const char* address = buffers[buffer] + inside;
      memcpy((place < 0 ? buffers[~place] : args[place]) + offset, &address, 8);
    }
    bool known = false;
    for (const Entry& e : entries)
      if (!strcmp(e.name, name)) {
        known = true;
        if (e.run(head, head[3], (unsigned)head[4], head[5], (void**)args.data())) {
          fprintf(stderr, "%s: %s\n", name, error);
          return 1;
        }
      }
    if (!known) return 4;
    for (size_t i = 0; i < buffers.size(); i++) {
      fwrite(buffers[i], sizes[i], 1, out);
      free(buffers[i]);
    }
    for (char* a : args) free(a);
  }
  for (Fiber& f : fiber) free(f.stack);
  return in && out && !fclose(out) ? 0 : 5;
}

}  // namespace emu
