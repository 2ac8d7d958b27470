"""How Binance says it: our values as its JSON. Field names, their types and the eight decimals are its own.

Two clocks: what is about the market carries market time; only `server_time` is the wall's.
Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from services.venue_sim.exchange import Balance, Costs, Exchange, Order, Trade
from services.venue_sim.market import Candle
from services.venue_sim.refusals import Refusal
from services.venue_sim.requests import MAX_NOTIONAL, MAX_PRICE, MAX_QUANTITY
from shared.contracts.instruments import Instrument, to_binance

Json = dict[str, Any]

BOOK_QUANTITY = Decimal(1000)  # base units at the best bid and ask: there is no book, one level takes all
NO_TRADE = -1  # Binance's own word for "no trade id"; a candle here is not made of trades


def amount(value: Decimal | float) -> str:
    """Eight decimals, never an exponent."""
    return f"{value:.8f}"


def refusal(refused: Refusal) -> Json:
    return {"code": refused.code, "msg": refused.message}


def server_time(wall_ms: int) -> Json:
    return {"serverTime": wall_ms}


def exchange_info(instruments: Iterable[Instrument], wall_ms: int) -> Json:
    return {
        "timezone": "UTC",
        "serverTime": wall_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200_000},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61_000},
        ],
        "exchangeFilters": [],
        "symbols": [_symbol(each) for each in instruments],
        "sors": [],
    }


def _symbol(instrument: Instrument) -> Json:
    return {
        "symbol": to_binance(instrument.symbol),
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": amount(instrument.tick),
                "maxPrice": amount(MAX_PRICE),
                "tickSize": amount(instrument.tick),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": amount(instrument.lot),
                "maxQty": amount(MAX_QUANTITY),
                "stepSize": amount(instrument.lot),
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": amount(instrument.min_notional),
                "applyMinToMarket": True,
                "maxNotional": amount(MAX_NOTIONAL),
                "applyMaxToMarket": True,
                "avgPriceMins": 0,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def kline(bar: Candle, length: int) -> list[Any]:
    """A REST candle. `length` is the bar's, in ms."""
    turnover = amount(_turnover(bar))
    half, half_turnover = amount(bar.volume / 2), amount(_turnover(bar) / 2)
    return [
        bar.opened_at,
        amount(bar.open),
        amount(bar.high),
        amount(bar.low),
        amount(bar.close),
        amount(bar.volume),
        bar.opened_at + length - 1,
        turnover,
        0,
        half,
        half_turnover,
        "0",
    ]


def kline_event(symbol: str, timeframe: str, bar: Candle, length: int, at: int, *, is_closed: bool) -> Json:
    """A candle frame. `at` is the event's market time, ms."""
    name = to_binance(symbol)
    return {
        "e": "kline",
        "E": at,
        "s": name,
        "k": {
            "t": bar.opened_at,
            "T": bar.opened_at + length - 1,
            "s": name,
            "i": timeframe,
            "f": NO_TRADE,
            "L": NO_TRADE,
            "o": amount(bar.open),
            "c": amount(bar.close),
            "h": amount(bar.high),
            "l": amount(bar.low),
            "v": amount(bar.volume),
            "n": 0,
            "x": is_closed,
            "q": amount(_turnover(bar)),
            "V": amount(bar.volume / 2),
            "Q": amount(_turnover(bar) / 2),
            "B": "0",
        },
    }


def just_opened(bar: Candle) -> Candle:
    """What is known of the open bar: its open. The rest has not happened yet."""
    return Candle(bar.opened_at, bar.open, bar.open, bar.open, bar.open, 0.0)


def ticker_price(symbol: str, price: float) -> Json:
    return {"symbol": to_binance(symbol), "price": amount(price)}


def book_ticker(symbol: str, bid: Decimal, ask: Decimal) -> Json:
    return {
        "symbol": to_binance(symbol),
        "bidPrice": amount(bid),
        "bidQty": amount(BOOK_QUANTITY),
        "askPrice": amount(ask),
        "askQty": amount(BOOK_QUANTITY),
    }


def ticker_24h(symbol: str, day: list[Candle], last: float, bid: Decimal, ask: Decimal, length: int, now: int) -> Json:
    """The last 24 hours: `day` are its closed bars, oldest first; `last` is the price now."""
    first = day[0].open if day else last
    volume = sum(bar.volume for bar in day)
    turnover = sum(_turnover(bar) for bar in day)
    return {
        "symbol": to_binance(symbol),
        "priceChange": amount(last - first),
        "priceChangePercent": f"{(last / first - 1) * 100:.3f}",
        "weightedAvgPrice": amount(turnover / volume if volume else last),
        "prevClosePrice": amount(first),
        "lastPrice": amount(last),
        "lastQty": amount(0),
        "bidPrice": amount(bid),
        "bidQty": amount(BOOK_QUANTITY),
        "askPrice": amount(ask),
        "askQty": amount(BOOK_QUANTITY),
        "openPrice": amount(first),
        "highPrice": amount(max([bar.high for bar in day], default=last)),
        "lowPrice": amount(min([bar.low for bar in day], default=last)),
        "volume": amount(volume),
        "quoteVolume": amount(turnover),
        "openTime": day[0].opened_at if day else now,
        "closeTime": (day[-1].opened_at + length if day else now),
        "firstId": NO_TRADE,
        "lastId": NO_TRADE,
        "count": 0,
    }


def account(exchange: Exchange, at: int) -> Json:
    costs = exchange.costs
    return {
        "makerCommission": int(costs.maker_fee_bps),
        "takerCommission": int(costs.taker_fee_bps),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": _rates(costs),
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": at,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": amount(held.free), "locked": amount(held.locked)}
            for asset, held in exchange.balances.items()
        ],
        "permissions": ["SPOT"],
        "uid": 1,
    }


def _rates(costs: Costs) -> Json:
    return {
        "maker": amount(costs.maker_fee_bps / 10_000),
        "taker": amount(costs.taker_fee_bps / 10_000),
        "buyer": amount(0),
        "seller": amount(0),
    }


def new_order(order: Order, trade: Trade | None) -> Json:
    """The answer to a new order, `newOrderRespType=FULL`."""
    fills = [] if trade is None else [trade]
    return {
        **_order_head(order),
        "transactTime": order.placed_at,
        **_order_body(order),
        "workingTime": order.placed_at,
        "selfTradePreventionMode": "NONE",
        "fills": [
            {
                "price": amount(each.price),
                "qty": amount(each.quantity),
                "commission": amount(each.fee),
                "commissionAsset": each.fee_asset,
                "tradeId": each.id,
            }
            for each in fills
        ],
    }


def canceled_order(order: Order) -> Json:
    return {
        "symbol": to_binance(order.symbol),
        "origClientOrderId": order.client_id,
        "orderId": order.id,
        "orderListId": -1,
        "clientOrderId": f"cancel-{order.id}",
        "transactTime": order.updated_at,
        **_order_body(order),
        "selfTradePreventionMode": "NONE",
    }


def queried_order(order: Order) -> Json:
    return {
        **_order_head(order),
        **_order_body(order),
        "stopPrice": amount(0),
        "icebergQty": amount(0),
        "time": order.placed_at,
        "updateTime": order.updated_at,
        "isWorking": True,
        "workingTime": order.placed_at,
        "selfTradePreventionMode": "NONE",
    }


def _order_head(order: Order) -> Json:
    return {
        "symbol": to_binance(order.symbol),
        "orderId": order.id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
    }


def _order_body(order: Order) -> Json:
    return {
        "price": amount(order.price),
        "origQty": amount(order.quantity),
        "executedQty": amount(order.executed),
        "origQuoteOrderQty": amount(0),
        "cummulativeQuoteQty": amount(order.spent),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
    }


def account_trade(trade: Trade) -> Json:
    return {
        "symbol": to_binance(trade.symbol),
        "id": trade.id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": amount(trade.price),
        "qty": amount(trade.quantity),
        "quoteQty": amount(trade.notional),
        "commission": amount(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.at,
        "isBuyer": trade.side == "BUY",
        "isMaker": trade.is_maker,
        "isBestMatch": True,
    }


def execution_report(order: Order, trade: Trade | None, kind: str, number: int, at: int) -> Json:
    """What the user stream says of an order. `kind` is NEW, TRADE, CANCELED or EXPIRED; `number` counts executions."""
    return {
        "e": "executionReport",
        "E": at,
        "s": to_binance(order.symbol),
        "c": order.client_id if kind != "CANCELED" else f"cancel-{order.id}",
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": amount(order.quantity),
        "p": amount(order.price),
        "P": amount(0),
        "F": amount(0),
        "g": -1,
        "C": "" if kind != "CANCELED" else order.client_id,
        "x": kind,
        "X": order.status if kind != "NEW" else "NEW",
        "r": "NONE",
        "i": order.id,
        "l": amount(trade.quantity if trade else 0),
        "z": amount(order.executed if kind != "NEW" else 0),
        "L": amount(trade.price if trade else 0),
        "n": amount(trade.fee) if trade else "0",
        "N": trade.fee_asset if trade else None,
        "T": at,
        "t": trade.id if trade else NO_TRADE,
        "I": number,
        "w": kind == "NEW" and order.type != "MARKET",
        "m": trade.is_maker if trade else False,
        "M": trade is not None,
        "O": order.placed_at,
        "Z": amount(order.spent if kind != "NEW" else 0),
        "Y": amount(trade.notional if trade else 0),
        "Q": amount(0),
        "W": order.placed_at,
        "V": "NONE",
    }


def account_position(balances: dict[str, Balance], at: int) -> Json:
    """What the user stream says of the balances that an order changed."""
    return {
        "e": "outboundAccountPosition",
        "E": at,
        "u": at,
        "B": [{"a": asset, "f": amount(held.free), "l": amount(held.locked)} for asset, held in balances.items()],
    }


def _turnover(bar: Candle) -> float:
    """Quote units that changed hands, as far as a candle tells."""
    return bar.volume * (bar.open + bar.close) / 2
