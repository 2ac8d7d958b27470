"""How a kernel is compiled: as code that only other kernels call.

numba optimises each function, and makes machine code of it, before it is linked into those that call it, where all of
that is done again. A kernel is linked as it was written instead: only a loop is optimised, whole, and made machine code.
That is a fifth of the time to compile.
"""

# pyright: standard, reportIncompatibleMethodOverride=false
# This is numba's inner API.

from __future__ import annotations

from typing import Any

from llvmlite.binding import parse_assembly
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import (
    AnnotateTypes,
    InlineOverloads,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NoPythonSupportedFeatureValidation,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteDynamicRaises,
    RewriteSemanticConstants,
    TranslateByteCode,
)

ENVIRONMENT = "_ZN08NumbaEnv"


class KernelCode(JITCodeLibrary):
    """One kernel and those that it calls, to be linked. All that gets an address is the kernel's environment."""

    def finalize(self) -> None:
        self._raise_if_finalized()
        for called in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(called._reload_init)
            self._final_module.link_in(called._get_module_for_linking(), preserve=True)
        self._finalized = True
        self._get_module_for_linking()  # keeps what was linked, for those that will call this
        environments = [each for each in self._final_module.global_variables if each.name.startswith(ENVIRONMENT)]
        addressed = "\n".join([str(self._codegen._create_empty_module(self.name)), *map(str, environments)])
        self._final_module = parse_assembly(addressed)
        self._finalize_final_module()


class KernelLower(Lower):
    """Looks for references to count only where there are any: a state has forty numbers and no array."""

    def incref(self, kind: Any, value: Any) -> None:
        if self.context.data_model_manager[kind].contains_nrt_meminfo():
            super().incref(kind, value)

    def decref(self, kind: Any, value: Any) -> None:
        if self.context.data_model_manager[kind].contains_nrt_meminfo():
            super().decref(kind, value)


@register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(NativeLowering):
    """numba's own, into `KernelCode`."""

    _name = "kernel_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = KernelCode(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().run_pass(state)


# Without those for closures, `with`, array expressions and literals, which no kernel has.
PASSES = (
    TranslateByteCode,
    FixupArgs,
    IRProcessing,
    RewriteSemanticConstants,
    DeadBranchPrune,
    GenericRewrites,
    RewriteDynamicRaises,
    ReconstructSSA,
    NopythonTypeInference,
    PreLowerStripPhis,
    InlineOverloads,
    NoPythonSupportedFeatureValidation,
    IRLegalization,
    AnnotateTypes,
    KernelLowering,
    NoPythonBackend,
)


class KernelCompiler(CompilerBase):
    """Those of numba's own passes that a kernel can need, which are half of them."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("kernel")
        for each in PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]
