// Entry of the CUDA half: importing it runs the registrations of the other files.
#include <Python.h>

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_C_cuda", "CUDA kernels of dissect (importing registers them).", -1, nullptr,
    nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__C_cuda() {
  return PyModule_Create(&module_definition);
}
