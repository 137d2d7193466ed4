"""What is read from the text of a compiled program: loops, collectives, work."""

from benchmarks.compilers.hlo import Collective, Program, collectives
from benchmarks.compilers.program import work_of

TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%inner (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%p), dimensions={0}
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], f32[8]{0}) parameter(0)
  %a = f32[8]{0} get-tuple-element(%arg), index=1
  %call = f32[8]{0} call(%a), to_apply=%inner
  %fusion = f32[8]{0} fusion(%call), kind=kLoop, backend_config={"estimated_cycles":"7"}
  ROOT %next = (s32[], f32[8]{0}) tuple(%a, %fusion)
}

%condition (arg.1: (s32[], f32[8])) -> pred[] {
  %arg.1 = (s32[], f32[8]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main.1 (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %start = (f32[2]{0}, f32[8]{0}) all-gather-start(%q), dimensions={0}
  %done = f32[8]{0} all-gather-done(%start)
  %part.1 = bf16[4,3]{1,0} collective-permute(%done), metadata={chain_id="1"}
  %part.2 = bf16[4,3]{1,0} collective-permute(%done), metadata={chain_id="2"}
  %both = (f32[8]{0}, /*index=1*/pred[3]{0}) all-reduce(%done, %done), to_apply=%sum
  %first = (s32[], f32[8]{0}) tuple(%q, %done)
  %while = (s32[], f32[8]{0}) while(%first), condition=%condition, body=%body
  ROOT %result = f32[8]{0} get-tuple-element(%while), index=1
}
"""


def test_collectives_with_their_bytes():
    inside, outside = Program(TEXT).collectives()
    assert inside == [Collective("all-gather", 32)]
    assert outside == [
        Collective("all-gather", 32),
        Collective("all-reduce", 35),
        Collective("collective-permute", 24),  # Both parts are one.
    ]
    assert collectives(TEXT)[0] == ["all-gather"]


def test_loops_count_as_often_as_they_run():
    # A fusion and a collective in each of five iterations; four collectives outside.
    assert work_of(Program(TEXT)) == (35, 14, 0)
    known = 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    assert work_of(Program(TEXT.replace("body=%body", known))) == (21, 10, 0)
    unknown = TEXT.replace("direction=LT", "direction=NE")
    assert work_of(Program(unknown)) == (7, 6, 1)
