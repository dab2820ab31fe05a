// Schemas of every op: the contract between Python and C++. The twins register their halves at the foot
// of their own files; importing this module runs the registrations.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dissect, m) {
  // Everything that one read of a batch of activation maps yields. maps [B, P, U] float32 (P = h * w
  // places), valid [B] bool. keep = k + 1 largest values per unit are held in tail [U, cap], of which
  // fill [U] are set; bound [U] is a running lower bound of the threshold.
  m.def(
      "scan(Tensor maps, Tensor valid, int first_image, int keep, Tensor(a!) tail, Tensor(b!) fill, "
      "Tensor(c!) bound, Tensor(d!) low, Tensor(e!) high, Tensor(f!) nonfinite, Tensor(g!) moments, "
      "Tensor(h!) histogram, Tensor(i!) top_value, Tensor(j!) top_image, Tensor(k!) top_place, Tensor(l!) peak) -> ()");
  // Nodes above the bound and their neighbours, as pairs (unit, image) with sparse nodes; used [2] tells
  // how many pairs and nodes there are. Nothing is written where they do not fit.
  m.def(
      "gather(Tensor maps, int height, int width, Tensor peak, Tensor bound, Tensor(a!) pair_unit, "
      "Tensor(b!) pair_image, Tensor(c!) pair_start, Tensor(d!) node_place, Tensor(e!) node_value, "
      "Tensor(f!) used) -> ()");
  // The same from a sparse chunk and a higher bound.
  m.def(
      "prune(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
      "int height, int width, Tensor bound, Tensor(a!) out_unit, Tensor(b!) out_image, Tensor(c!) out_start, "
      "Tensor(d!) out_place, Tensor(e!) out_value, Tensor(f!) used) -> ()");
  // A chunk as bytes, out [n] uint8, and its pairs out of them again. On a GPU torch's own operations do it.
  m.def(
      "pack(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
      "int unit_bytes, int image_bytes, int count_bytes, Tensor(a!) out) -> ()");
  m.def(
      "unpack(Tensor data, int nodes, int unit_bytes, int image_bytes, int count_bytes, int place_bytes, "
      "Tensor(a!) pair_unit, Tensor(b!) pair_image, Tensor(c!) pair_start) -> ()");
  // Upsample, threshold with corner pruning, and count: intersection [U, L], area [U, K], mask [U] int64.
  m.def(
      "overlap(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
      "int height, int width, Tensor row_node, Tensor row_t, Tensor column_node, Tensor column_t, "
      "Tensor threshold, Tensor planes, Tensor plane_start, Tensor scalars, Tensor scalar_start, Tensor held, "
      "Tensor primary, int area_rule, Tensor(a!) intersection, Tensor(b!) area, Tensor(c!) mask) -> ()");
  // Pixels to network input, (x - mean) / std along every row. On a GPU torch's own operations do it.
  m.def("normalise(Tensor pixels, Tensor mean, Tensor std, Tensor(a!) out) -> ()");
  // Once a run, on the CPU alone: average precision [U, L] of ranking images by the peaks of a unit.
  m.def("ranking(Tensor peaks, Tensor start, Tensor numbers, Tensor primary, Tensor(a!) precision) -> ()");
  // Incremental occlusion: cuts of a cached map with changed patches in it, see dissect/attribution/occlusion.
  m.def("patch_gather(Tensor base, Tensor patch, Tensor origin, Tensor start, float fill, Tensor(a!) out) -> ()");
  // Inversion: the priors of natural pre-images with their gradient, and the whole step of such a descent; z [B, C, h, w].
  m.def(
      "natural(Tensor z, float alpha, float alpha_scale, float beta, float variation_scale, Tensor(a!) gradient, "
      "Tensor(b!) rows) -> ()");
  m.def(
      "descend(Tensor z, Tensor gradient, float alpha, float alpha_scale, float beta, float variation_scale, "
      "Tensor rate, float mu, float memory, float radius, Tensor(a!) squares, Tensor(b!) speeds, Tensor(c!) out, "
      "Tensor(d!) rows) -> ()");
  // Fooling: pictures [P, 1 or 3, V] of pattern-producing networks, see dissect/inversion/patterns.
  m.def(
      "render_patterns(Tensor kinds, Tensor neuron_start, Tensor link_start, Tensor sender, Tensor weight, "
      "Tensor places, Tensor(a!) out) -> ()");
}

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_C", "Schemas and CPU kernels of dissect (importing registers them).", -1, nullptr,
    nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__C() {
  return PyModule_Create(&module_definition);
}
