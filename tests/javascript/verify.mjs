// Reads requests as JSON lines on stdin, and writes for each what the reference libraries make of it.
// {kind: "webhook", secret, headers, body} is verified; {kind: "cloudevent", headers, body} is read as one or several events.
import { createInterface } from "node:readline";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

function webhook({ secret, headers, body }) {
  return new Webhook(secret).verify(body, headers);
}

function cloudevent({ headers, body }) {
  const read = HTTP.toEvent({ headers, body });
  const events = Array.isArray(read) ? read : [read];
  return events.map((event) => (event.validate(), event.toJSON()));
}

const kinds = { webhook, cloudevent };

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let told;
  try {
    told = { value: kinds[request.kind](request) };
  } catch (error) {
    told = { error: `${error.name}: ${error.message}` };
  }
  console.log(JSON.stringify(told));
}
