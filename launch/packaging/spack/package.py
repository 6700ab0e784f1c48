# Recipe for Spack, read for its syntax only: Spack itself has not built it yet. Point `git` at the repository that you build from.
from spack.package import *


class Switchyard(CMakePackage):
    """Distributed training of mixture-of-experts language models, made for studying how they scale."""

    homepage = "file:///usr/share/doc/switchyard/README.md"
    git = "file:///usr/src/switchyard"

    license("Apache-2.0")

    version("main", branch="main")

    variant("cuda", default=False, description="Kernels for NVIDIA cards")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("onednn@2.6: cpu_runtime=omp")
    depends_on("highway@1.0.3:")
    depends_on("hdf5@1.10: ~mpi")
    depends_on("yaml-cpp@0.7:")
    depends_on("boost@1.74: +program_options+iostreams")
    depends_on("random123")
    depends_on("sentencepiece")
    depends_on("fmt@9:")
    depends_on("spdlog@1.10: +fmt_external")
    depends_on("nlohmann-json@3.11:")
    depends_on("xxhash@0.8:")
    depends_on("nlopt@2.7:")
    depends_on("zlib-api")
    depends_on("cuda@12:", when="+cuda")

    def cmake_args(self):
        return [
            self.define("SWITCHYARD_BUILD_TESTS", False),
            self.define("SWITCHYARD_CUDA", "ON" if "+cuda" in self.spec else "OFF"),
        ]
