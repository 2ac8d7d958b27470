// The only door to the service: what every program may ask, too.

async function answered(response) {
  const body = await response.json();
  if (!response.ok) throw new Error(typeof body.detail === "string" ? body.detail : `HTTP ${response.status}`);
  return body;
}

export const get = async (path) => answered(await fetch(`/api/v1${path}`));

// What may not exist yet (no snapshot, no reading) is null; every other failure is one.
export async function getOrNull(path) {
  const response = await fetch(`/api/v1${path}`);
  return response.status === 404 ? null : answered(response);
}

// Sent twice with the same key it is done once.
export const command = async (verb, key) =>
  answered(await fetch(`/api/v1/ops/${verb}`, { method: "POST", headers: { "Idempotency-Key": key } }));

export function stream(onPulse, onLink) {
  const source = new EventSource("/api/v1/stream");
  source.addEventListener("open", () => onLink(true));
  source.addEventListener("error", () => onLink(false));
  source.addEventListener("pulse", (event) => onPulse(JSON.parse(event.data)));
}
