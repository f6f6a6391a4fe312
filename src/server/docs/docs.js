"use strict";

/* Shows /api/v1/openapi.json: every operation with its parameters, request body and responses, with examples. */

const METHODS = ["get", "post", "put", "patch", "delete"];
let api = null;

/** Creates an element with attributes and children. Strings become text nodes, never HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Nodes for a text; parts between backticks become code elements. */
function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

/** Paragraphs and headings for a Markdown text that has only these, and code between backticks. */
function markdown(text) {
  return text.split("\n\n").map((block) => (block.startsWith("## ") ? make("h2", {}, block.slice(3)) : make("p", {}, ...prose(block))));
}

/** The schema that a reference refers to; any other schema itself. */
function resolve(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((place, key) => place?.[key], api) ?? {};
}

/** The schema without the alternative null, references resolved. */
function plain(schema) {
  const options = (schema?.oneOf ?? schema?.anyOf ?? []).filter((option) => option.type !== "null");
  return resolve(options.length === 1 ? options[0] : schema);
}

function typeName(schema) {
  const found = plain(schema);
  if (found.enum) return found.enum.map((word) => JSON.stringify(word)).join(" | ");
  const types = [found.type ?? "anything"].flat().filter((type) => type !== "null");
  if (types[0] === "array") return `list of ${typeName(found.items)}`;
  const range = [found.minimum, found.maximum];
  const bounds = range.some((bound) => bound !== undefined) ? `, ${range[0] ?? "…"} to ${range[1] ?? "…"}` : "";
  return types.join(" or ") + bounds;
}

/** An example value for the schema. */
function example(schema, depth = 0) {
  if (schema?.example !== undefined) return schema.example;
  if (schema?.examples?.length) return schema.examples[0];
  const found = plain(schema);
  if (found !== schema && found.example !== undefined) return found.example;
  if (found.enum) return found.enum[0];
  const type = [found.type].flat().find((name) => name !== "null");
  if (depth > 5) return null;
  if (type === "array") return [example(found.items, depth + 1)];
  if (type === "object") {
    const entries = Object.entries(found.properties ?? {});
    return Object.fromEntries(entries.map(([name, value]) => [name, example(value, depth + 1)]));
  }
  return { string: "…", integer: found.minimum ?? 0, number: found.minimum ?? 0, boolean: true }[type] ?? null;
}

/** Table rows for the properties of an object, each followed by the rows of the object that it contains. */
function rows(schema, prefix = "") {
  const found = plain(schema);
  return Object.entries(found.properties ?? {}).flatMap(([name, value]) => {
    const needed = (found.required ?? []).includes(name) && !prefix ? " (required)" : "";
    const about = value.description ?? plain(value).description ?? "";
    const row = make("tr", {},
      make("th", { scope: "row" }, make("code", {}, prefix + name), needed),
      make("td", { class: "type" }, typeName(value)),
      make("td", {}, ...prose(about)));
    return [row, ...rows(value, `${prefix}${name}.`)];
  });
}

function properties(schema, title) {
  const found = plain(schema);
  const list = rows([found.type].flat().includes("array") ? found.items : found);
  if (!list.length) return [];
  return [make("table", {}, make("caption", {}, title), make("tbody", {}, ...list))];
}

function content(described, title) {
  const kinds = Object.entries(described?.content ?? {});
  if (!kinds.length) return [];
  const [kind, { schema, example: given }] = kinds[0];
  const parts = [make("p", { class: "type" }, kinds.map(([name]) => name).join(", "))];
  if (!schema) return parts;
  parts.push(...properties(schema, title));
  if (kind.endsWith("json")) {
    const text = JSON.stringify(given ?? example(schema), null, 2);
    parts.push(make("pre", { tabindex: "0", "aria-label": `Example of ${title.toLowerCase()}` }, make("code", {}, text)));
  }
  return parts;
}

/** Responses: successful ones with their content, errors with one line each. */
function responseParts(responses) {
  const parts = [];
  const errors = [];
  for (const [status, response] of Object.entries(responses)) {
    if (status.startsWith("2")) {
      parts.push(make("h4", {}, `${status}: ${response.description}`), ...content(response, "Response"));
    } else if (status !== "default") {
      errors.push(make("tr", {}, make("th", { scope: "row" }, status), make("td", {}, response.description)));
    }
  }
  if (errors.length) {
    parts.push(make("h4", {}, "Errors"));
    parts.push(make("table", {}, make("caption", {}, "Problem documents"), make("tbody", {}, ...errors)));
  }
  return parts;
}

function operation(path, method, described) {
  const id = described.operationId;
  const section = make("section", { "aria-labelledby": id },
    make("h3", { id }, make("span", { class: `method ${method}` }, method), make("code", { class: "path" }, path)),
    make("p", { class: "summary" }, ...prose(described.summary ?? "")));
  if (described.description) section.append(make("p", {}, ...prose(described.description)));
  const parameters = (described.parameters ?? []).map((parameter) => make("tr", {},
    make("th", { scope: "row" }, make("code", {}, parameter.name), ` (${parameter.in})`),
    make("td", { class: "type" }, typeName(parameter.schema)),
    make("td", {}, ...prose(parameter.description ?? ""))));
  if (parameters.length) {
    section.append(make("table", {}, make("caption", {}, "Parameters"), make("tbody", {}, ...parameters)));
  }
  if (described.requestBody) section.append(make("h4", {}, "Request body"), ...content(described.requestBody, "Request body"));
  section.append(...responseParts(described.responses ?? {}));
  return section;
}

function show() {
  const contents = document.getElementById("contents");
  const main = document.getElementById("operations");
  document.getElementById("about").replaceChildren(make("p", {}, `Version ${api.info.version}`), ...markdown(api.info.description));
  for (const tag of api.tags ?? []) {
    main.append(make("h2", {}, tag.name), make("p", {}, ...prose(tag.description ?? "")));
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS.filter((name) => item[name]?.tags?.includes(tag.name))) {
        main.append(operation(path, method, item[method]));
        contents.append(make("li", {}, make("a", { href: `#${item[method].operationId}` },
          make("span", { class: `method ${method}` }, method), make("code", { class: "path" }, path))));
      }
    }
  }
  // The browser could not scroll to the operation in the address: its element did not exist when the page was loaded.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("/api/v1/openapi.json")
  .then((response) => {
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return response.json();
  })
  .then((described) => {
    api = described;
    show();
  })
  .catch((error) => {
    document.getElementById("about").textContent = `The OpenAPI document /api/v1/openapi.json cannot be loaded: ${error.message}. Reload the page to try again.`;
  });
