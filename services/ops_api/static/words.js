// How numbers, times and ids are written. Nothing here touches the page.

const money = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const plain = new Intl.NumberFormat("en-US", { maximumFractionDigits: 8 });

export const UNKNOWN = "—";

export const amount = (value) => (value === null || value === undefined ? UNKNOWN : money.format(Number(value)));
export const signed = (value) => (value === null || value === undefined ? UNKNOWN : (Number(value) > 0 ? "+" : "") + money.format(Number(value)));
export const quantity = (value) => plain.format(Number(value));
export const percent = (value, digits = 1) => (value === null || value === undefined ? UNKNOWN : `${(100 * value).toFixed(digits)} %`);
export const ratio = (value) => (value === null || value === undefined ? UNKNOWN : value.toFixed(2));
export const inRisk = (value) => (value === null || value === undefined ? UNKNOWN : `${value > 0 ? "+" : ""}${value.toFixed(2)} R`);

// A price keeps about six digits: 64,210.5 and 0.043215 are both read at a glance.
export function price(value) {
  const number = Number(value);
  const digits = Math.max(2, Math.min(8, 5 - Math.floor(Math.log10(Math.abs(number) || 1))));
  return number.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: number >= 1000 ? 2 : digits });
}

export const tone = (value) => (Number(value) > 0 ? "good" : Number(value) < 0 ? "bad" : "quiet");
export const short = (id) => (id.length > 16 ? id.slice(0, 8) : id);

// "2026-03-02T04:09:00Z" -> "2026-03-02 04:09"
export const moment = (iso) => iso.slice(0, 16).replace("T", " ");
export const momentOfDay = (iso) => iso.slice(5, 16).replace("T", " ");
