"""`closedform memory`: LLaMA-2-7B by the published numbers, and every wrong call in one line."""

import json

import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.models.llama import Config
from ref.models.llama_memory import from_hugging_face, llama_memory

SEVEN = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    def call(*args, fields=SEVEN, text=None):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(fields) if text is None else text)
        return CliRunner().invoke(app, ["memory", str(path), *args])

    return call


def test_seven_billion(run):
    found = json.loads(run("--json").stdout)
    assert found["parameters"] == 6_738_415_616 and found["states"] == 16 * 6_738_415_616
    assert found["total"] == found["states"] + found["activations"]
    table = run("--seq", "4096").stdout
    assert "107,814,649,856" in table and "107.8" in table and "6,738,415,616 parameters" in table


def test_what_fits(run):
    args = ("--seq", "4096", "--gpu", "80", "--ranks", "8")
    whole, sharded = run(*args), run(*args, "--zero", "3", "--checkpoint", "layers")
    assert "does not fit 80 GB" in whole.stdout and "15.2 GB fits 80 GB" in sharded.stdout
    assert max(map(len, whole.stdout.splitlines())) <= 80
    found = json.loads(run(*args, "--json").stdout)
    assert found["fits"] is False and len(found["fitting"]) == 16
    for row in found["fitting"]:
        wanted = llama_memory(Config(), 1, 4096, checkpoint=row["checkpoint"], zero=row["zero"], ranks=8).total
        assert row["total"] == wanted and row["fits"] is (wanted <= 80e9)
    assert {r["fits"] for r in found["fitting"]} == {True, False}


@pytest.mark.parametrize(
    "args, said",
    [
        (["--precision", "fp8"], "precision='fp8'; needed one of fp32, bf16, fp16"),
        (["--checkpoint", "segments:0"], "segments=0; needed 1 .. layers=32"),
        (["--checkpoint", "segments:-2"], "segments=-2; needed"),
        (["--checkpoint", "segments:33"], "segments=33; needed"),
        (["--checkpoint", "revolve:0"], "snaps=0; needed at least 1"),
        (["--checkpoint", "half"], "checkpoint='half'; needed none, layers, segments:K or revolve:S"),
        (["--checkpoint", "revolve:x"], "checkpoint='revolve:x'; needed none"),
        (["--zero", "4"], "zero=4; needed 0, 1, 2 or 3"),
        (["--tp", "3"], "tp=3 does not divide heads=32, groups=32, hidden=11008, vocabulary=32000"),
        (["--tp", "0"], "tp=0; needed at least 1"),
        (["--ranks", "0"], "ranks=0; needed"),
        (["--batch", "0"], "batch=0; needed at least 1"),
        (["--seq", "-1"], "seq=-1; needed at least 1"),
        (["--gpu", "0"], "--gpu 0; needed more than 0 GB"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(run, args, said):
    found = run(*args)
    assert found.exit_code == 2 and said in found.output and len(found.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "fields, text, said",
    [
        ({"vocab_size": 8, "hidden_size": 4}, None,
         "config lacks num_hidden_layers, num_attention_heads, intermediate_size"),
        (SEVEN | {"hidden_size": "4096", "vocab_size": 0, "num_hidden_layers": True}, None,
         "config has vocab_size=0, hidden_size='4096', num_hidden_layers=True; needed integers of at least 1"),
        (SEVEN | {"num_key_value_heads": 1.5}, None, "num_key_value_heads=1.5; needed integers"),
        (SEVEN | {"head_dim": 64}, None, "head_dim=64; needed hidden_size / num_attention_heads"),
        (SEVEN | {"num_attention_heads": 30}, None, "heads=30"),
        (None, "{", "config.json: "),
        (None, "[1]", "a JSON object is needed, got list"),
    ],
)  # fmt: skip
def test_wrong_files(run, fields, text, said):
    found = run(fields=fields, text=text)
    assert found.exit_code == 2 and said in found.output and "Traceback" not in found.output


def test_a_missing_file_and_the_model_of_a_config(tmp_path):
    found = CliRunner().invoke(app, ["memory", str(tmp_path / "none.json")])
    assert found.exit_code == 2 and "No such file" in found.output
    assert from_hugging_face(SEVEN) == Config(groups=32)
    assert from_hugging_face(SEVEN | {"num_key_value_heads": 8, "tie_word_embeddings": True}) == Config(
        groups=8, tied=True
    )
    assert from_hugging_face({k: v for k, v in SEVEN.items() if k != "num_key_value_heads"}).groups == 0


def test_sizes_are_integers():
    with pytest.raises(TypeError, match="integer"):
        llama_memory(Config(), 1.5, 8)
