"""Every kernel compiles for what it is for, into registers alone, and with no warning of the assembler."""

import re

import pytest

from backends.kernels import BFLOAT16, Program, build, nvrtc
from backends.kernels.programs import AMPERE, every_program

CASES = [(program, arch) for program, archs in every_program() for arch in archs]
# (source, arch) -> spilled bytes that are accepted, measured: none.
ACCEPTED_SPILLS = {}


@pytest.mark.parametrize("program, arch", CASES, ids=lambda x: str(x).replace(" ", "-"))
def test_it_compiles_without_spills(program, arch):
    made = build.cubin(program, arch)
    assert made.path.read_bytes()[:4] == b"\x7fELF"
    assert not re.search(r"serializ|warning", made.log, re.IGNORECASE), made.log
    kernels = set(re.findall(r"^KERNEL void BOUNDS\([^)]*\) (\w+)", build.source_text(program.source), re.MULTILINE))
    assert set(made.usage) == kernels
    for usage in made.usage.values():
        assert usage.spills <= ACCEPTED_SPILLS.get((program.source, arch), 0)
        assert usage.stack == 0
        assert usage.registers <= 255


def test_sources_include_nothing():
    for program, _ in every_program():
        live = build.source_text(program.source)
        live = re.sub(r'#ifdef EMU\n#include "emulation/\w+\.h"\n', "", live)
        assert "#include" not in live, program


def test_nvrtc_makes_the_same_kernels():
    """The compiler of machines without nvcc."""
    program = Program("attention_simt", (("STORAGE", BFLOAT16),))
    options = [*build.OPTIONS, "--gpu-architecture=sm_80", "--ptxas-options=-v", *program.flags()]
    image, log = nvrtc.compile_cubin(build.source_text(program.source), "attention_simt.cu", options)
    assert image[:4] == b"\x7fELF"
    usage = build.usage_of(log)
    assert usage.keys() == {"attention_simt"}
    assert usage["attention_simt"].spills == 0
    assert nvrtc.version().startswith("13.")


def test_what_does_not_compile_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOSEDFORM_CACHE", str(tmp_path))
    bad = Program("attention_simt", (("STORAGE", "x+"),))
    with pytest.raises(RuntimeError, match=r"(?s)refuses attention_simt STORAGE=x\+ for sm_80:.*error"):
        build.cubin(bad, AMPERE)
    with pytest.raises(RuntimeError, match="NVRTC refuses x.cu:.*\n.*error"):
        nvrtc.compile_cubin("int f() { return }", "x.cu", [])


def test_without_a_compiler_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(nvrtc, "candidates", lambda: [str(tmp_path)])
    nvrtc.library.cache_clear()
    build.compiler.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="no CUDA compiler is here; install nvcc, or the package nvidia-cuda-nv"):
            build.cubin(Program("attention_simt"), AMPERE)
    finally:
        nvrtc.library.cache_clear()
        build.compiler.cache_clear()


def test_a_second_call_compiles_nothing(tmp_path, monkeypatch):
    program = CASES[0][0]
    first = build.cubin(program, AMPERE)
    monkeypatch.setattr(build, "compiler", lambda: (build_name, None))
    build_name = build.nvcc() and build.subprocess.run([build.nvcc(), "--version"], capture_output=True, text=True)
    build_name = f"nvcc {build_name.stdout.splitlines()[-1]}" if build_name else f"nvrtc {nvrtc.version()}"
    assert build.cubin(program, AMPERE) == first


def test_reports_are_read():
    log = """ptxas info    : Compiling entry function 'f' for 'sm_80'
ptxas info    : Function properties for f
    24 bytes stack frame, 20 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size"""
    assert build.usage_of(log) == {"f": build.Usage(255, 24, 48)}
