// HDF5 1.10.8 loses an object header (424 bytes) whenever it fails to decode a damaged one, and
// what it half-closed after a failed write. Tests that damage files tell the leak sanitizer so;
// leaks of our own are still found. Without the sanitizer nobody calls this.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libhdf5";
}
