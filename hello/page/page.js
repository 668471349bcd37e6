// Shows /openapi.json, and sends what the reader tries. No library; no HTML made of strings.

const SHOWN = ["get", "put", "post", "patch", "delete"]; // HEAD and OPTIONS are said once, above

let description;

/** The element `name` with attributes and children; children are elements or texts. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== undefined));
  return made;
}

/** The contents, still to be made, of elements that are folded. */
const folded = new Map();

/** What the reader can open. Unless it is open, it is made later: see `makeTheRest`. */
function fold(attributes, summary, contents) {
  const details = element("details", attributes, element("summary", {}, summary));
  folded.set(details, contents);
  if (attributes.open) make(details);
  return details;
}

/** Make the contents of what is folded, if they are not there. */
function make(details) {
  const contents = folded.get(details);
  if (folded.delete(details)) details.append(element("div", {}, ...contents()));
}

/** Make what is folded, so that it can be searched; after 5 ms of it, the browser has its turn. */
async function makeTheRest() {
  let end = 0;
  for (const details of folded.keys()) {
    if (performance.now() > end) {
      await new Promise((resolve) => setTimeout(resolve));
      end = performance.now() + 5;
    }
    make(details);
  }
}

/** What a node of the description says, or what it refers to. */
function resolve(node) {
  while (node && node.$ref) {
    const keys = node.$ref.slice(2).split("/");
    node = keys.reduce(
      (at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")],
      description,
    );
  }
  return node;
}

/** Text with `code` in it: of Markdown the descriptions use no more. */
function inline(text) {
  return text
    .split("`")
    .map((part, number) => (number % 2 ? element("code", {}, part) : part));
}

function paragraphs(text = "") {
  const parts = text.trim().split(/\n\s*\n/);
  return parts.filter(Boolean).map((part) => element("p", {}, inline(part)));
}

/** The values of `examples`, or what a schema allows alone. */
function examples(media) {
  const schema = resolve(media.schema) ?? {};
  const named = Object.values(media.examples ?? {}).map((example) => resolve(example).value);
  return named.length === 0 && "const" in schema ? [schema.const] : named;
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function onOneLine(value) {
  return pretty(value).replace(/\n\s*/g, " ").replace(/^\{ (.*) \}$/, "{$1}");
}

function kind(schema) {
  if (schema.enum) return `one of ${schema.enum.join(", ")}`;
  return [schema.type, schema.format].filter(Boolean).join(", ");
}

/** The members of an object, one level deep and the levels below after them. */
function members(node) {
  const schema = resolve(node);
  if (!schema) return [];
  return Object.entries(schema.properties ?? {}).flatMap(([name, value]) => {
    const member = resolve(value);
    const optional = (schema.required ?? []).includes(name) ? "" : " (optional)";
    const said = member.description ? [...inline(member.description), " "] : [];
    return [
      element("dt", {}, name),
      element("dd", {}, said, `${kind(member)}${optional}`),
      ...members(member.additionalProperties),
    ];
  });
}

/** An operation: what it does, a form to try it, and what may come back. */
class Operation {
  constructor(path, method, item, open) {
    this.path = path;
    this.method = method;
    this.operation = item[method];
    const parameters = [...(item.parameters ?? []), ...(this.operation.parameters ?? [])];
    // Header fields are for programs.
    this.parameters = parameters.map(resolve).filter((one) => one.in !== "header");
    this.inputs = new Map();
    this.curl = element("pre", { class: "curl", tabindex: 0, "aria-label": "as a curl command" });
    this.answer = element("div", { class: "answer", "aria-live": "polite" });
    this.open = open;
  }

  get id() {
    return this.operation.operationId;
  }

  get label() {
    return `${this.method.toUpperCase()} ${this.path}`;
  }

  render() {
    return fold(
      { class: "operation", id: this.id, open: this.open },
      [
        element(
          "h3",
          {},
          element("span", { class: "method" }, this.method.toUpperCase()),
          " ",
          element("code", { class: "path" }, this.path),
        ),
        element("span", { class: "soft" }, this.operation.summary ?? ""),
      ],
      () => [
        paragraphs(this.operation.description),
        this.renderForm(),
        this.answer,
        element("h4", {}, "What may come back"),
        Object.entries(this.operation.responses).map(([status, response]) =>
          this.renderResponse(status, resolve(response)),
        ),
      ],
    );
  }

  renderForm() {
    const fields = this.parameters.map((parameter) => this.renderParameter(parameter));
    if (this.operation.requestBody) fields.push(this.renderBody());
    const form = element(
      "form",
      { "aria-label": `Try ${this.label}` },
      fields,
      this.curl,
      element("button", {}, "Send"),
    );
    form.addEventListener("input", () => this.showCurl());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.showCurl();
    return form;
  }

  renderParameter(parameter) {
    const schema = resolve(parameter.schema) ?? {};
    const [example] = examples(parameter);
    const attributes = { name: parameter.name, autocomplete: "off", spellcheck: "false" };
    if (schema.enum) {
      const options = schema.enum.map((value) => element("option", {}, value));
      return this.renderField(parameter, element("select", attributes, options));
    }
    attributes.autocapitalize = "none";
    attributes[parameter.required ? "value" : "placeholder"] = example ?? "";
    return this.renderField(parameter, element("input", attributes));
  }

  renderBody() {
    const body = resolve(this.operation.requestBody);
    const [media] = Object.values(body.content);
    const input = element("textarea", { name: "body", rows: 2, spellcheck: "false" });
    input.value = onOneLine(examples(media)[0]);
    return element(
      "div",
      {},
      this.renderField({ name: "body", description: body.description }, input),
      element("dl", { class: "hint" }, members(media.schema)),
    );
  }

  renderField({ name, description: said }, input) {
    input.id = `${this.id}-${name}`;
    this.inputs.set(name, input);
    const hint = element("p", { class: "hint", id: `${input.id}-hint` }, inline(said ?? ""));
    if (said) input.setAttribute("aria-describedby", hint.id);
    return element(
      "div",
      {},
      element("label", { for: input.id }, name),
      input,
      said ? hint : undefined,
    );
  }

  renderResponse(status, response) {
    const content = Object.entries(response.content ?? {});
    return fold(
      { class: "response" },
      [
        element("code", { class: status < 400 ? "good" : "bad" }, status),
        element("span", { class: "soft" }, inline(response.description)),
      ],
      () => [
        content.flatMap(([type, media]) => [
          element("p", {}, element("code", {}, type)),
          element("dl", {}, members(media.schema)),
          ...examples(media).map((value) => element("pre", { tabindex: 0 }, pretty(value))),
        ]),
        element("h4", {}, "Header fields"),
        element("dl", {}, this.headers(response)),
      ],
    );
  }

  headers(response) {
    return Object.entries(response.headers ?? {}).flatMap(([name, node]) => {
      const header = resolve(node);
      const value = header.schema.const ?? header.example;
      const said = [header.description ?? "", header.required ? "" : "(optional)"];
      return [
        element("dt", {}, value === undefined ? name : `${name}: ${value}`),
        element("dd", {}, inline(said.join(" ").trim())),
      ];
    });
  }

  address() {
    const value = (name) => this.inputs.get(name).value;
    const path = this.path.replace(/{([^}]+)}/g, (_, name) => encodeURIComponent(value(name)));
    const query = this.parameters
      .filter((parameter) => parameter.in === "query" && value(parameter.name) !== "")
      .map(({ name }) => `${encodeURIComponent(name)}=${encodeURIComponent(value(name))}`)
      .join("&");
    return location.origin + path + (query && `?${query}`);
  }

  showCurl() {
    const quote = (text) =>
      /^[\w.:/%~-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
    const words = ["curl -i"];
    if (this.method !== "get") words.push("-X", this.method.toUpperCase());
    const body = this.inputs.get("body")?.value;
    // With -d, curl reads the file whose name follows an @.
    if (body !== undefined) words.push(body.startsWith("@") ? "--data-raw" : "-d", quote(body));
    this.curl.textContent = [...words, quote(this.address())].join(" ");
  }

  async send() {
    const body = this.inputs.get("body")?.value;
    const options = { method: this.method.toUpperCase(), body };
    if (body !== undefined) options.headers = { "Content-Type": "application/json" };
    this.answer.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(this.address(), options);
      this.show(response, await response.text());
    } catch (error) {
      const said = `No answer: ${error.message}`;
      this.answer.replaceChildren(element("p", { class: "bad" }, said));
    }
    this.answer.removeAttribute("aria-busy");
  }

  /** Like `curl -i`: status, header fields, body; JSON with room to breathe. */
  show(response, text) {
    const isJSON = /[/+]json$/.test(response.headers.get("Content-Type") ?? "");
    const fields = [...response.headers].map(([name, value]) => `${name}: ${value}`);
    const status = `${response.status} ${response.statusText}`;
    const body = isJSON && text ? pretty(JSON.parse(text)) : text;
    this.answer.replaceChildren(
      element("p", { class: response.ok ? "good" : "bad" }, status),
      element("pre", { class: "body", tabindex: 0, "aria-label": "body" }, body || "no body"),
      element(
        "details",
        { class: "response" },
        element("summary", { class: "soft" }, "Header fields"),
        element("pre", { class: "fields", tabindex: 0 }, fields.join("\n")),
      ),
    );
  }
}

const PROBLEM = "application/problem+json";

/** The name of a problem type: what is last in its URI. */
function problemName(type) {
  return type.split(/[:/#]/).at(-1).replace(/^problem-/, "");
}

/** The problem types by name, each with an example of it and the answers that have it. */
function problems(operations) {
  const found = new Map();
  const add = (type) => {
    const name = problemName(type);
    if (!found.has(name)) found.set(name, { type, answers: [] });
    return found.get(name);
  };
  for (const operation of operations) {
    for (const node of Object.values(operation.operation.responses)) {
      const response = resolve(node);
      for (const example of examples(response.content?.[PROBLEM] ?? {})) {
        const problem = add(example.type);
        problem.example = example;
        problem.answers.push({ operation, response });
      }
    }
  }
  // One that no operation names may still come: a defect.
  const { type } = resolve(description.components.schemas.Problem).properties;
  for (const one of type.examples ?? []) add(one);
  found.delete(problemName("about:blank")); // says no more than the status
  return found;
}

function renderProblem(name, { type, example, answers }) {
  const said = new Set(answers.map(({ response }) => response.description));
  const status = example ? [element("code", { class: "bad" }, example.status), " "] : [];
  const links = answers.flatMap(({ operation: { id, label } }) => [
    " ",
    element("a", { href: `#${id}` }, label),
  ]);
  return fold(
    { class: "problem", id: `problem-${name}` },
    [
      element("h3", {}, status, example?.title ?? name),
      element("span", { class: "soft" }, inline([...said].join("; "))),
    ],
    () => [
      element("p", {}, "Type: ", element("code", {}, type)),
      links.length > 0 ? element("p", {}, "An answer of:", links) : undefined,
      example ? element("pre", { tabindex: 0, "aria-label": "example" }, pretty(example)) : undefined,
    ],
  );
}

function render() {
  const { info, paths, tags, components } = description;
  const [first] = Object.keys(paths);
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((key) => SHOWN.includes(key))
      .map((method) => new Operation(path, method, item, path === first)),
  );
  const sections = tags.map(({ name, description: said }) =>
    element(
      "section",
      {},
      element("h2", {}, name),
      paragraphs(said),
      operations
        .filter(({ operation }) => operation.tags.includes(name))
        .map((operation) => operation.render()),
    ),
  );
  main.replaceChildren(
    element("h1", {}, info.title),
    element("p", { class: "lead" }, info.summary),
    ...paragraphs(info.description),
    ...sections,
    element(
      "section",
      { id: "problems" },
      element("h2", {}, "Problems"),
      paragraphs(components.schemas.Problem.description),
      [...problems(operations)].map((problem) => renderProblem(...problem)),
    ),
  );
}

/** Open what the fragment of the address names, if it can be opened. */
function open() {
  const named = () => document.getElementById(location.hash.slice(1));
  if (location.hash && !named()) folded.forEach((_, details) => make(details)); // it may be in one
  const details = named()?.closest("details");
  if (!details) return;
  make(details);
  details.open = true;
}

const main = document.querySelector("main");
addEventListener("hashchange", open);
try {
  // Asked for already, by page.html. The page's own address may have a password in front.
  const response = await fetch(`${location.origin}/openapi.json`);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  description = await response.json();
  render();
  open();
  // When the browser looked for the fragment, there was nothing yet: let it look again.
  if (location.hash) location.replace(location.hash);
  await makeTheRest();
} catch (error) {
  const said = `The description could not be shown: ${error.message}`;
  main.append(element("p", { class: "bad", role: "alert" }, said));
}
main.removeAttribute("aria-busy");
