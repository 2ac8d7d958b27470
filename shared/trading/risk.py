"""How much: from a fraction of the sleeve's equity to whole lots that it can pay for."""

from __future__ import annotations

from shared.trading.kernel import kernel
from shared.trading.ledger import PPM
from shared.trading.scales import Rules


@kernel
def lots_for(exposure: float, equity: int, close: float, rules: Rules) -> int:
    """The lots (signed) that hold `exposure` of `equity` (ledger units) at `close`, net of slippage and fee.

    Rounded towards zero, and never more than may be held. With a fixed size: that, or what all of the equity pays for.
    """
    if equity <= 0:
        return 0
    side = 1.0 if exposure > 0.0 else -1.0
    share = 1.0 if rules.size > 0 else exposure * side * rules.exposure
    price = close * rules.ticks * (1.0 + rules.slippage) + 1.0  # ticks; a fill is rounded by less than one
    worth = price * float(rules.unit) * (1.0 + float(rules.fee_ppm) / float(PPM))
    lots = (share * float(equity) - float(rules.min_fee)) / worth
    most = rules.size if 0 < rules.size < rules.max_lots else rules.max_lots
    if lots >= float(most):  # tested before int(): a float that does not fit would wrap
        return int(side) * most
    return int(side) * int(lots) if lots > 0.0 else 0


@kernel
def permitted(lots: int, held: int, may_trade: bool) -> int:
    """What may be held of what is wanted: everything, or, while nothing new may be begun, not more than there is."""
    if may_trade:
        return lots
    if (held > 0 and lots <= 0) or (held < 0 and lots >= 0):
        return 0
    return lots if abs(lots) < abs(held) else held


@kernel
def is_worth_sending(order: int, wanted: int, close: float, rules: Rules) -> bool:
    """Whether the venue takes an order of this size. One that ends a position is always tried."""
    if order == 0:
        return False
    return wanted == 0 or abs(float(order)) * close * rules.ticks * float(rules.unit) >= float(rules.min_notional)


@kernel
def affordable(lots: int, cash: int, ticks: int, fee_ppm: int, rules: Rules) -> int:
    """Lots that `cash` pays for at this price, fee included, of a purchase of `lots`.

    A market may open above the close at which the quantity was fixed; a sleeve on spot never owes money.
    """
    cost = float(ticks) * float(rules.unit) * (1.0 + float(fee_ppm) / float(PPM))
    purse = float(cash) * (1.0 - 1e-12) - 1.0 - float(rules.min_fee)  # what floats may blur, and the fee's rounding
    if purse <= 0.0:
        return 0
    return lots if float(lots) * cost <= purse else int(purse / cost)
